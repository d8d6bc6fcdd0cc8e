"""OpenAI's Realtime API over a WebSocket: speech and text in both directions.

Facts:
- A turn begins with `response.create`, or by itself when the provider hears that the speaker has ended (`response.created` that nobody
  asked for). Turns outside the conversation may run side by side; each message of one names its response.
- What the user said or a tool answered comes before, as `conversation.item.create`; so the last such item is what a turn asks.
- `response.done` has the figures. Input includes what was read from the cache, audio is a part of input and of output.
- Most `error` messages end nothing; one ends the turn that is refused.
- What the speaker said is written down by another model, beside the turns and charged for by that model's prices, in tokens or in
  seconds. Each such transcription is a turn of its own here, marked as beside the work.

Source:
    https://developers.openai.com/api/docs/guides/realtime-conversations
    https://developers.openai.com/api/reference/resources/realtime
"""

from typing import Final
from urllib.parse import parse_qs

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import (
    ProviderErrorReported,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers import errors, openai_responses, requests
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.bodies import DocumentBody, MessageBody
from aiproxyd.providers.conversations import WHOLE, Said, Turn, kind_of_cut, unmistakable
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, Count, decode, is_null, short, starts_with, text_of, unknown
from aiproxyd.providers.openai_items import TOOL_KINDS
from aiproxyd.providers.openai_media_usage import MediaUsage, media_token_usage
from aiproxyd.wire.event_stream import ServerSentEvent

MAX_ITEM_BYTES: Final = 1 << 18
"""An item above it (sound, most often) is remembered without its content, so that a connection holds no more than this."""

_OTHER_EVENTS: Final = frozenset(
    {
        "rate_limits.updated",
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call.in_progress",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.output_text.done",
        "response.text.done",
    }
)
"""Events of a response that are known and say nothing that another does not say better."""

_OTHER_ITEMS: Final = frozenset({"message", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response"})


class _CachedDetails(msgspec.Struct):
    audio_tokens: Count = None


class _InputDetails(msgspec.Struct):
    cached_tokens: Count = None
    cached_tokens_details: _CachedDetails | None = None
    audio_tokens: Count = None
    image_tokens: Count = None


class _OutputDetails(msgspec.Struct):
    audio_tokens: Count = None


class _Usage(msgspec.Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    input_token_details: _InputDetails | None = None
    output_token_details: _OutputDetails | None = None


class _Transcription(msgspec.Struct):
    item_id: str | None = None
    transcript: str | None = None
    usage: MediaUsage | None = None
    error: msgspec.Raw = requests.NOTHING


class _Transcriber(msgspec.Struct):
    model: msgspec.Raw = requests.NOTHING


class _Input(msgspec.Struct):
    transcription: _Transcriber | None = None


class _Sound(msgspec.Struct):
    input: _Input | None = None


class _Session(msgspec.Struct):
    """As a client configures it and the provider repeats it. Older servers have the transcription's model at the top."""

    model: msgspec.Raw = requests.NOTHING
    audio: _Sound | None = None
    input_audio_transcription: _Transcriber | None = None

    @property
    def transcription_model(self) -> msgspec.Raw:
        """That of whoever writes down what the speaker says, or nothing."""
        sound = self.audio.input if self.audio is not None else None
        transcriber = (sound.transcription if sound is not None else None) or self.input_audio_transcription
        return requests.NOTHING if transcriber is None else transcriber.model


class _StatusDetails(msgspec.Struct):
    reason: str | None = None
    error: msgspec.Raw = requests.NOTHING


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    status_details: _StatusDetails | None = None
    usage: _Usage | None = None


class _Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    server_label: str | None = None
    arguments: str | None = None


class _Error(msgspec.Struct):
    event_id: str | None = None
    code: str | None = None


class _Event(msgspec.Struct):
    """Any message of either side, as far as it is read."""

    type: str = ""
    event_id: msgspec.Raw = requests.NOTHING
    response_id: msgspec.Raw = requests.NOTHING
    response: msgspec.Raw = requests.NOTHING
    session: msgspec.Raw = requests.NOTHING
    item: msgspec.Raw = requests.NOTHING
    error: msgspec.Raw = requests.NOTHING
    delta: msgspec.Raw = requests.NOTHING
    arguments: msgspec.Raw = requests.NOTHING
    item_id: msgspec.Raw = requests.NOTHING
    output_index: int = 0


_EVENT: Final = msgspec.json.Decoder(_Event)
_RESPONSE: Final = msgspec.json.Decoder(_Response)
_ITEM: Final = msgspec.json.Decoder(_Item)
_SESSION: Final = msgspec.json.Decoder(_Session)
_TRANSCRIPTION: Final = msgspec.json.Decoder(_Transcription)
_ERROR: Final = msgspec.json.Decoder(_Error)


class _Reader:
    """One response, as a `bodies.StreamReader`."""

    __slots__ = ("_calls", "_ended", "_failed")

    def __init__(self) -> None:
        self._calls: dict[int, bool] = {}
        """Tool calls that have not ended, by output index, and whether arguments came."""
        self._failed = False
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        said = decode(_EVENT, event.data)
        index = said.output_index
        match said.type:
            case (
                "response.output_text.delta"
                | "response.text.delta"
                | "response.output_audio_transcript.delta"
                | "response.audio_transcript.delta"
            ):
                if text := text_of(said.delta):
                    out.append(TextDelta(len(text)))
            case "response.function_call_arguments.delta" | "response.mcp_call_arguments.delta":
                self._add_arguments(index, text_of(said.delta) or "", out)
            case "response.function_call_arguments.done" | "response.mcp_call_arguments.done":
                if self._calls.get(index) is False:
                    self._add_arguments(index, text_of(said.arguments) or "", out)
            case "response.output_item.added":
                self._begin_item(index, decode(_ITEM, said.item), out)
            case "response.output_item.done":
                self._finish_item(index, decode(_ITEM, said.item), out)
            case "response.created":
                response = decode(_RESPONSE, said.response)
                out.append(ResponseStarted(response.id or "", response.model or ""))
            case "response.done":
                self._finish(decode(_RESPONSE, said.response), out)
            case kind if kind in WHOLE:
                self._read_transcription(decode(_TRANSCRIPTION, event.data), out)
            case "error":
                self._fail(said.error, out)
            case kind if kind not in _OTHER_EVENTS:
                out.append(unknown("event", kind))

    def finish(self, out: list[StreamEvent]) -> None:
        if self._failed and not self._ended:
            out.append(ResponseEnded("error", complete=False))

    def _begin_item(self, index: int, item: _Item, out: list[StreamEvent]) -> None:
        kind = TOOL_KINDS.get(item.type)
        if kind is None:
            if item.type not in _OTHER_ITEMS:
                out.append(unknown("item", item.type))
            return
        if len(self._calls) >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} open tool calls")
        self._calls[index] = False
        name = item.name or item.type
        out.append(ToolCallStarted(index, name, item.call_id or "", item.id or "", kind, item.server_label or ""))

    def _add_arguments(self, index: int, fragment: str, out: list[StreamEvent]) -> None:
        if fragment and index in self._calls:
            self._calls[index] = True
            out.append(ToolCallDelta(index, fragment))

    def _finish_item(self, index: int, item: _Item, out: list[StreamEvent]) -> None:
        has_arguments = self._calls.get(index)
        if has_arguments is None:
            return
        if not has_arguments:
            self._add_arguments(index, item.arguments or "", out)
        del self._calls[index]
        out.append(ToolCallEnded(index, truncated=item.status in {"incomplete", "in_progress"}))

    def _finish(self, response: _Response, out: list[StreamEvent]) -> None:
        self._ended = True
        if response.usage is not None:
            out.append(UsageReported(_token_usage(response.usage), final=True))
        status, details = response.status or "", response.status_details or _StatusDetails()
        if not is_null(details.error):
            self._fail(details.error, out)
        elif status == "failed":
            self._fail(b"{}", out)
        if status in {"incomplete", "cancelled"}:
            out.extend(ToolCallEnded(index, truncated=True) for index in self._calls)
            self._calls.clear()
        if status in {"incomplete", "cancelled"} and details.reason:
            status = f"{status}:{short(details.reason)}"
        # A turn that the speaker interrupted is answered as far as anybody wanted, and charged for.
        out.append(ResponseEnded(status, complete=not self._failed))

    def _read_transcription(self, said: _Transcription, out: list[StreamEvent]) -> None:
        self._ended = True
        out.append(ResponseStarted(said.item_id or ""))
        if said.transcript:
            out.append(TextDelta(len(said.transcript)))
        found = media_token_usage(said.usage) if said.usage is not None else None
        if found is not None:
            out.append(UsageReported(found, final=True))
        if not is_null(said.error):
            self._fail(said.error, out)
        out.append(ResponseEnded("failed" if self._failed else "completed", complete=not self._failed))

    def _fail(self, error: bytes | msgspec.Raw, out: list[StreamEvent]) -> None:
        self._failed = True
        out.append(errors.decoded_error(error))


def _token_usage(usage: _Usage) -> TokenUsage:
    inputs, outputs = usage.input_token_details or _InputDetails(), usage.output_token_details or _OutputDetails()
    whole_input, output = token_count(usage.input_tokens), token_count(usage.output_tokens)
    cached = token_count(inputs.cached_tokens)
    cached_audio = token_count(inputs.cached_tokens_details.audio_tokens) if inputs.cached_tokens_details is not None else 0
    return TokenUsage(
        input_tokens=max(0, whole_input - cached),
        output_tokens=output,
        cache_read_input_tokens=cached,
        extra={
            "prompt_audio": token_count(inputs.audio_tokens),
            "prompt_image": token_count(inputs.image_tokens),
            "completion_audio": token_count(outputs.audio_tokens),
            "total_tokens": whole_input + output if usage.total_tokens is None else token_count(usage.total_tokens),
        }
        | ({"cached_audio": cached_audio} if cached_audio else {}),
    )


class RealtimeConversation:
    """See `Conversation`. A turn's body is written in the shape of a Responses request: the model, and the last item."""

    __slots__ = ("_asked", "_has_updated", "_item", "_model", "_transcription_model", "api")

    def __init__(self) -> None:
        self.api = API
        self._item: msgspec.Raw = requests.NOTHING
        """The last item that the client added since the last turn."""
        self._model: msgspec.Raw = requests.NOTHING
        self._transcription_model: msgspec.Raw = requests.NOTHING
        self._has_updated = False
        """Whether the client configured the session, which a `session.created` on its way does not know of."""
        self._asked = ""
        """The client's id of its newest `response.create`."""

    def from_client(self, message: bytes, *, is_whole: bool) -> Turn | None:
        """See `Conversation.from_client`."""
        if not is_whole:
            if kind_of_cut(message) == "conversation.item.create":
                self._item = requests.NOTHING
            return None
        said = unmistakable(_EVENT, message)
        if said.type == "conversation.item.create":
            self._item = msgspec.Raw(bytes(said.item)) if len(said.item) <= MAX_ITEM_BYTES else requests.NOTHING
        elif said.type == "session.update":
            self._has_updated = True
            self._learn_model(said.session)
        if said.type != "response.create":
            return None
        self._asked = text_of(said.event_id) or ""
        return self._turn(said.response)

    def from_server(self, message: bytes, *, is_whole: bool) -> Said:
        """See `Conversation.from_server`."""
        if not is_whole:
            return Said(kind_of_cut(message))
        said = unmistakable(_EVENT, message)
        if said.type == "session.updated" or (said.type == "session.created" and not self._has_updated):
            self._learn_model(said.session)
        if said.type == "error":
            error = decode(_ERROR, said.error) if starts_with(said.error, b"{") else _Error()
            is_ours = bool(error.event_id) and error.event_id == self._asked
            return Said("error", is_refusal=is_ours or error.code == "conversation_already_has_active_response")
        if said.type in WHOLE:
            # A lane of its own: it may come at any time, and belongs to no answer.
            lane = f"transcription:{short(text_of(said.item_id) or '')}"
            return Said(said.type, lane=lane, turn=lane)
        id_ = text_of(said.response_id) or ""
        if starts_with(said.response, b"{"):
            id_ = decode(_RESPONSE, said.response).id or id_
        return Said(said.type, turn=id_, response_id=id_)

    def unasked(self, said: Said) -> Turn:
        """See `Conversation.unasked`."""
        if said.kind in WHOLE:
            return Turn(msgspec.json.encode({"model": self._transcription_model, "transcription": True}), lane=said.lane)
        return self._turn(requests.NOTHING)

    def _learn_model(self, session: msgspec.Raw) -> None:
        if starts_with(session, b"{"):
            found = decode(_SESSION, session)
            if starts_with(found.model, b'"'):
                self._model = msgspec.Raw(bytes(found.model))
            if starts_with(found.transcription_model, b'"'):
                self._transcription_model = msgspec.Raw(bytes(found.transcription_model))

    def _turn(self, response: msgspec.Raw) -> Turn:
        fields = decode(requests.FIELDS, response) if starts_with(response, b"{") else {}
        body: dict[str, msgspec.Raw] = {"model": self._model, "metadata": fields.get("metadata", requests.NOTHING)}
        if starts_with(given := fields.get("input", requests.NOTHING), b"["):
            body["input"] = given
        elif not is_null(self._item):
            body["input"] = msgspec.Raw(b"[" + bytes(self._item) + b"]")
        self._item = requests.NOTHING
        return Turn(msgspec.json.encode(body))


def _read_turn(body: bytes, head: RequestHead) -> RequestFacts:
    facts = openai_responses.API.read_request(body, head)
    if _is_transcription(body):
        # The sound is nowhere in it, so there is nothing to estimate by.
        metadata = facts.metadata | {"transport": "websocket", "utility": "transcription"}
        return msgspec.structs.replace(facts, streaming=True, input_characters=0, metadata=metadata)
    model = facts.request_model or parse_qs(head.query).get("model", [""])[0][: requests.MAX_HINT_CHARACTERS]
    return msgspec.structs.replace(
        facts, request_model=model, streaming=True, metadata=facts.metadata | {"transport": "websocket"}
    )


def _is_transcription(body: bytes) -> bool:
    try:
        return starts_with(decode(requests.FIELDS, body).get("transcription", requests.NOTHING), b"t")
    except MalformedBody:
        return False


def _no_document(body: bytes) -> list[StreamEvent]:  # noqa: ARG001
    raise MalformedBody("this API has no answers in one document")


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


API: Final = Api(
    name="openai.realtime",
    operation="chat",
    read_request=_read_turn,
    stream_parser=lambda max_event_bytes: MessageBody(_Reader()),  # noqa: ARG005 (who frames messages bounds them)
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, _no_document),
    read_error=_read_error,
)
