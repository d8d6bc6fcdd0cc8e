"""OpenAI's audio: sound to text (`POST /v1/audio/transcriptions`, `/translations`) and text to sound (`/v1/audio/speech`).

Facts:
- A transcription is an object with `text` and `usage`, by tokens or by duration; older models tell only a `duration`, and only in the
  verbose form. Asked for as text, subtitles or captions it is just that, without figures.
- Its stream is events `transcript.text.delta`, `.segment` and `.done`; the last has the usage.
- Speech is the sound itself. With `stream_format: sse` it is events `speech.audio.delta` and `.done`; the last has the usage.
- What is spoken or transcribed is nobody's prompt: none is recorded, and no tokens are guessed from its length, since sound is not
  billed by it.

Source:
    https://developers.openai.com/api/reference/resources/audio
    https://developers.openai.com/api/docs/guides/speech-to-text
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import (
    ProviderErrorReported,
    ResponseEnded,
    StreamEvent,
    TextDelta,
    UsageReported,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.bodies import EventStreamBody
from aiproxyd.providers.decoding import decode, is_null, text_of, unknown
from aiproxyd.providers.forms import form_fields
from aiproxyd.providers.members_body import MembersBody, UnreadBody
from aiproxyd.providers.openai_media_usage import USAGE, MediaUsage, media_token_usage, of_seconds
from aiproxyd.wire.event_stream import ServerSentEvent

_SKIPPED_AT_START: Final = b" \t\r\n\xef\xbb\xbf"
_MEMBERS: Final = ("task", "usage", "duration", "error")
_QUIET: Final = frozenset({"transcript.text.segment", "speech.audio.delta"})


class _Event(msgspec.Struct):
    type: str = ""
    delta: msgspec.Raw = requests.NOTHING
    usage: MediaUsage | None = None
    error: msgspec.Raw = requests.NOTHING


_EVENT: Final = msgspec.json.Decoder(_Event)
_SECONDS: Final = msgspec.json.Decoder(int | float | str | None)


class _Reader:
    """One streamed transcription or speech."""

    __slots__ = ("_is_over",)

    def __init__(self) -> None:
        self._is_over = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        if not event.data or event.data == b"[DONE]":
            return
        data = decode(_EVENT, event.data)
        kind = data.type or event.event
        if kind == "error" or not is_null(data.error):
            out.append(errors.decoded_error(event.data))
            self._end(out, complete=False)
        elif kind == "transcript.text.delta":
            if text := text_of(data.delta):
                out.append(TextDelta(len(text)))
        elif kind in {"transcript.text.done", "speech.audio.done"}:
            found = media_token_usage(data.usage) if data.usage is not None else None
            if found is not None:
                out.append(UsageReported(found, final=True))
            self._end(out, complete=True)
        elif kind not in _QUIET:
            out.append(unknown("event", kind))

    def finish(self, out: list[StreamEvent]) -> None:
        """Say nothing: the last event has said it."""

    def _end(self, out: list[StreamEvent], *, complete: bool) -> None:
        if not self._is_over:
            self._is_over = True
            out.append(ResponseEnded("" if complete else "error", complete=complete))


class _TranscriptionBody:
    """A `ResponseParser` of a transcription: an object, or plain text of any kind, told by its first byte."""

    __slots__ = ("_body", "_max_kept_bytes")

    samples = None

    def __init__(self, max_kept_bytes: int) -> None:
        self._max_kept_bytes = max_kept_bytes
        self._body: MembersBody | UnreadBody | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of the members kept so far."""
        return self._body.held_bytes if self._body is not None else 0

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`; always empty."""
        if self._body is None:
            data = data.lstrip(_SKIPPED_AT_START)
            if not data:
                return []
            self._body = MembersBody(self._max_kept_bytes, _MEMBERS, _read_members) if data[0] == ord("{") else UnreadBody()
        return self._body.feed(data)

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        return self._body.close() if self._body is not None else []


def _read_members(members: Mapping[str, bytes]) -> list[StreamEvent]:
    error = members.get("error", b"null")
    if not is_null(msgspec.Raw(error)):
        return [errors.decoded_error(error), ResponseEnded("error", complete=False)]
    usage = members.get("usage", b"null")
    if is_null(msgspec.Raw(usage)):
        found = of_seconds(_seconds(members.get("duration", b"null")))
    else:
        found = media_token_usage(decode(USAGE, usage))
    out: list[StreamEvent] = [] if found is None else [UsageReported(found, final=True)]
    out.append(ResponseEnded())
    return out


def _seconds(raw: bytes) -> float:
    """Return a duration, which some servers write as text; 0 for none."""
    value = decode(_SECONDS, raw)
    try:
        return float(value or 0)
    except (ValueError, OverflowError):
        return 0.0


class _Request(requests.Request):
    stream_format: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)


def _read_transcription_request(body: bytes, head: RequestHead) -> RequestFacts:
    fields = form_fields(body, head.headers.first("content-type") or "", ("model", "stream"))
    return RequestFacts(
        request_model=fields.get("model", "")[: requests.MAX_HINT_CHARACTERS], streaming=fields.get("stream") == "true"
    )


def _read_speech_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    try:
        request = decode(_REQUEST, body)
    except MalformedBody as exc:
        return RequestFacts(anomaly=f"request body: {exc}")
    return RequestFacts(
        request_model=(text_of(request.model) or "")[: requests.MAX_HINT_CHARACTERS],
        streaming=text_of(request.stream_format) == "sse",
    )


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


def _stream_parser(max_event_bytes: int) -> ResponseParser:
    return EventStreamBody(max_event_bytes, _Reader())


TRANSCRIPTIONS: Final = Api(
    name="openai.transcriptions",
    operation="transcription",
    read_request=_read_transcription_request,
    stream_parser=_stream_parser,
    document_parser=_TranscriptionBody,
    read_error=_read_error,
)

SPEECH: Final = Api(
    name="openai.speech",
    operation="speech",
    read_request=_read_speech_request,
    stream_parser=_stream_parser,
    document_parser=lambda _: UnreadBody(),
    read_error=_read_error,
)
