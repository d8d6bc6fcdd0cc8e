"""OpenAI's images (`POST /v1/images/generations`, `/edits`, `/variations`), also at Azure, xAI, Together and the compatible servers.

Facts:
- The answer is one object whose `data` is images in base64; only the GPT image models tell a `usage`.
- A stream is events `image_generation.partial_image` and `image_generation.completed` (`image_edit.…` for edits); each `completed` has the
  usage of its image.
- Edits and variations are asked for with a form that holds the images.

Source:
    https://developers.openai.com/api/reference/resources/images
    https://developers.openai.com/api/docs/guides/image-generation
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ProviderErrorReported, ResponseEnded, StreamEvent, UsageReported
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.bodies import EventStreamBody
from aiproxyd.providers.decoding import decode, is_null, text_of, unknown
from aiproxyd.providers.forms import form_fields
from aiproxyd.providers.members_body import MembersBody
from aiproxyd.providers.openai_media_usage import USAGE, MediaUsage, media_token_usage
from aiproxyd.wire.event_stream import ServerSentEvent

_MEMBERS: Final = ("created", "usage", "error")


class _Event(msgspec.Struct):
    type: str = ""
    usage: MediaUsage | None = None
    error: msgspec.Raw = requests.NOTHING


_EVENT: Final = msgspec.json.Decoder(_Event)


class _Reader:
    """The images of one streamed response."""

    __slots__ = ("_completed", "_failed", "_usage")

    def __init__(self) -> None:
        self._usage: TokenUsage | None = None
        self._completed = False
        self._failed = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        if not event.data or event.data == b"[DONE]":
            return
        data = decode(_EVENT, event.data)
        kind = data.type or event.event
        if kind == "error" or not is_null(data.error):
            self._failed = True
            out.append(errors.decoded_error(event.data))
        elif kind.endswith(".completed"):
            self._completed = True
            found = media_token_usage(data.usage) if data.usage is not None else None
            if found is not None:
                # Several images come with a usage each.
                self._usage = found if self._usage is None else self._usage + found
                out.append(UsageReported(self._usage))
        elif not kind.endswith(".partial_image"):
            out.append(unknown("event", kind))

    def finish(self, out: list[StreamEvent]) -> None:
        if self._usage is not None and not self._failed:
            out.append(UsageReported(self._usage, final=True))
        if self._completed or self._failed:
            out.append(ResponseEnded("error" if self._failed else "", complete=not self._failed))


def _read_members(members: Mapping[str, bytes]) -> list[StreamEvent]:
    error = members.get("error", b"null")
    if not is_null(msgspec.Raw(error)):
        return [errors.decoded_error(error), ResponseEnded("error", complete=False)]
    if not members:
        raise MalformedBody("the document is no list of images")
    out: list[StreamEvent] = []
    usage = members.get("usage", b"null")
    found = None if is_null(msgspec.Raw(usage)) else media_token_usage(decode(USAGE, usage))
    if found is not None:
        out.append(UsageReported(found, final=True))
    out.append(ResponseEnded())
    return out


class _Request(requests.Request):
    prompt: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:
    content_type = head.headers.first("content-type") or ""
    if "multipart/" in content_type.lower():
        fields = form_fields(body, content_type, ("model", "prompt", "stream"))
        prompt = fields.get("prompt")
        return RequestFacts(
            request_model=fields.get("model", "")[: requests.MAX_HINT_CHARACTERS],
            streaming=fields.get("stream") == "true",
            prompt=prompt,
            input_characters=len(prompt or ""),
        )
    return requests.read(body, _REQUEST, lambda request: (text_of(request.prompt), ""), lambda _: ("", {}))


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


def _document_parser(max_body_bytes: int) -> ResponseParser:
    return MembersBody(max_body_bytes, _MEMBERS, _read_members)


API: Final = Api(
    name="openai.images",
    operation="image_generation",
    read_request=_read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, _Reader()),
    document_parser=_document_parser,
    read_error=_read_error,
)
