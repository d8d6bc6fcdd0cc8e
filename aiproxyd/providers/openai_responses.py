"""OpenAI's Responses API (`POST /v1/responses`), also as ChatGPT's backend and Copilot serve it.

Facts:
- A stream is typed events about a response and its output items; each item is announced (`output_item.added`), grows by deltas
  and is repeated whole in `output_item.done` and in the terminal event (`response.completed`, `.incomplete` or `.failed`).
- Only the terminal event has usage.
- ChatGPT's backend ends with an empty `output`; Copilot gives an item another id in each event. So items are known by their
  `output_index`, and the terminal event's list only adds what was never seen.
- An `error` event is flat by the documentation and nested in practice; `response.failed` may follow it.

Source:
    https://developers.openai.com/api/reference/resources/responses/streaming-events
    https://developers.openai.com/api/docs/guides/streaming-responses
    https://developers.openai.com/api/docs/guides/function-calling
"""

from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import (
    ProviderErrorReported,
    ReasoningDelta,
    ReasoningEnded,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ThoughtSource,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody, MessageBody
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, decode, is_null, short, starts_with, text_of, unknown
from aiproxyd.providers.openai_items import OTHER_ITEMS, TOOL_KINDS, ItemText, OutputItem, arguments_of
from aiproxyd.providers.openai_usage import ResponseUsage, response_token_usage
from aiproxyd.wire.event_stream import ServerSentEvent

_OTHER_EVENTS: Final = frozenset(
    {
        "keepalive",
        "ping",
        "codex.rate_limits",
        "response.metadata",
        "responsesapi.websocket_timing",
        "response.audio.delta",
        "response.audio.done",
        "response.audio.transcript.done",
        "response.code_interpreter_call.completed",
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.compaction.compacting",
        "response.content_part.added",
        "response.content_part.done",
        "response.file_search_call.completed",
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.image_generation_call.completed",
        "response.image_generation_call.generating",
        "response.image_generation_call.in_progress",
        "response.image_generation_call.partial_image",
        "response.in_progress",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call.in_progress",
        "response.mcp_list_tools.completed",
        "response.mcp_list_tools.failed",
        "response.mcp_list_tools.in_progress",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.queued",
        "response.reasoning_summary_part.added",
        "response.refusal.done",
        "response.shell_call_command.added",
        "response.shell_call_command.delta",
        "response.shell_call_command.done",
        "response.shell_call_output_content.delta",
        "response.shell_call_output_content.done",
        "response.steer.accepted",
        "response.steer.failed",
        "response.steer.pending",
        "response.web_search_call.completed",
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
    }
)
"""Events that are known and say nothing that another does not say better."""


_UNFINISHED: Final = frozenset({"incomplete", "in_progress"})
"""What the status of an item is that was cut."""


class _IncompleteDetails(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: ResponseUsage | None = None
    service_tier: str | None = None
    incomplete_details: _IncompleteDetails | None = None
    error: msgspec.Raw = requests.NOTHING


class _ResponseEvent(msgspec.Struct):
    response: _Response


class _ItemEvent(msgspec.Struct):
    item: msgspec.Raw
    output_index: int = 0


class _DeltaEvent(msgspec.Struct):
    delta: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0


class _DoneEvent(msgspec.Struct):
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    arguments: str | None = None
    input: str | None = None


class _Kind(msgspec.Struct):
    type: str = ""


_KIND: Final = msgspec.json.Decoder(_Kind)
_RESPONSE: Final = msgspec.json.Decoder(_Response)
_RESPONSE_EVENT: Final = msgspec.json.Decoder(_ResponseEvent)
_ITEM_EVENT: Final = msgspec.json.Decoder(_ItemEvent)
_DELTA_EVENT: Final = msgspec.json.Decoder(_DeltaEvent)
_DONE_EVENT: Final = msgspec.json.Decoder(_DoneEvent)
_ITEM: Final = msgspec.json.Decoder(OutputItem)


class _ItemState:
    """One output item as far as it is known."""

    __slots__ = ("has_content", "is_commentary", "is_done", "kind", "parts", "tool")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.tool: int | None = None
        """The tool call's index."""
        self.has_content = False
        """Whether text or arguments came by deltas."""
        self.is_commentary = False
        self.is_done = False
        self.parts: dict[tuple[ThoughtSource, int], int | None] = {}
        """Reasoning parts by source and wire index: our index, or None when the part has ended."""


class _Reader:
    """One response, streamed or not."""

    __slots__ = ("_done_ids", "_ended", "_failed", "_id", "_items", "_model", "_parts")

    def __init__(self) -> None:
        self._id = ""
        self._model = ""
        self._items: dict[int, _ItemState] = {}
        self._done_ids: set[str] = set()
        self._parts = 0
        """Items, tool calls and reasonings so far: the next index."""
        self._failed = False
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        data = event.data
        name = event.event
        if name == "message":
            # The data repeats the name; a gateway that leaves out the event line is still understood.
            if data in {b"", b"[DONE]"}:
                return
            name = decode(_KIND, data).type
        match name:
            case "response.output_text.delta":
                self._read_text(decode(_DELTA_EVENT, data), out)
            case "response.refusal.delta":
                self._read_text(decode(_DELTA_EVENT, data), out)
            case "response.audio.transcript.delta":
                if text := decode(_DELTA_EVENT, data).delta:
                    out.append(TextDelta(len(text)))
            case (
                "response.function_call_arguments.delta"
                | "response.custom_tool_call_input.delta"
                | "response.mcp_call_arguments.delta"
            ):
                delta = decode(_DELTA_EVENT, data)
                self._add_arguments(delta.output_index, delta.delta, out)
            case "response.reasoning_summary_text.delta":
                delta = decode(_DELTA_EVENT, data)
                self._reason(delta.output_index, (ThoughtSource.REASONING_SUMMARY, delta.summary_index), delta.delta, out)
            case "response.reasoning_text.delta":
                delta = decode(_DELTA_EVENT, data)
                self._reason(delta.output_index, (ThoughtSource.REASONING_CONTENT, delta.content_index), delta.delta, out)
            case "response.reasoning_summary_text.done" | "response.reasoning_summary_part.done":
                done = decode(_DONE_EVENT, data)
                self._end_reasoning(done.output_index, (ThoughtSource.REASONING_SUMMARY, done.summary_index), out)
            case "response.reasoning_text.done":
                done = decode(_DONE_EVENT, data)
                self._end_reasoning(done.output_index, (ThoughtSource.REASONING_CONTENT, done.content_index), out)
            case (
                "response.function_call_arguments.done"
                | "response.custom_tool_call_input.done"
                | "response.mcp_call_arguments.done"
            ):
                done = decode(_DONE_EVENT, data)
                state = self._items.get(done.output_index)
                if state is not None and not state.has_content:
                    self._add_arguments(done.output_index, done.arguments or done.input or "", out)
            case "response.output_item.added":
                added = decode(_ITEM_EVENT, data)
                self._begin_item(added.output_index, added.item, out)
            case "response.output_item.done":
                finished = decode(_ITEM_EVENT, data)
                self._finish_item(finished.output_index, finished.item, self._done_ids, out)
            case "response.created":
                self._start(decode(_RESPONSE_EVENT, data).response, out)
            case "response.completed" | "response.incomplete" | "response.failed" | "response.done":
                response = decode(_RESPONSE_EVENT, data).response
                if name != "response.done":
                    response.status = name.removeprefix("response.")
                self._read_response(response, out)
            case "error":
                self._fail(data, out)
            case _ if name not in _OTHER_EVENTS:
                out.append(unknown("event", name))

    def finish(self, out: list[StreamEvent]) -> None:
        if self._failed and not self._ended:
            self._ended = True
            out.append(ResponseEnded("error", complete=False))

    def read_document(self, body: bytes) -> list[StreamEvent]:
        response = decode(_RESPONSE, body)
        out: list[StreamEvent] = []
        if response.output is None and response.status is None:
            if is_null(response.error):
                raise MalformedBody("the document is no response: it has neither status nor output")
            self._fail(body, out)
            self.finish(out)
        else:
            self._read_response(response, out)
        return out

    def _start(self, response: _Response, out: list[StreamEvent]) -> None:
        if (response.id and not self._id) or (response.model and not self._model):
            self._id = self._id or response.id or ""
            self._model = self._model or response.model or ""
            out.append(ResponseStarted(self._id, self._model))

    def _read_response(self, response: _Response, out: list[StreamEvent]) -> None:
        """Read a whole response: a document, or that of a terminal event. The first one counts."""
        if self._ended:
            return
        self._ended = True
        self._start(response, out)
        told_ids = frozenset(self._done_ids)
        for index, raw in enumerate(response.output or ()):
            state = self._items.get(index)
            if state is None or not state.is_done:
                self._finish_item(index, raw, told_ids, out)
        if response.status == "incomplete":
            self._cut_open_calls(out)
        if response.usage is not None:
            metadata = {"service_tier": short(response.service_tier)} if response.service_tier else {}
            out.append(UsageReported(response_token_usage(response.usage), final=True, metadata=metadata))
        if not is_null(response.error) and not self._failed:
            self._fail(response.error, out)
        status = response.status or ""
        if status == "failed" and not self._failed:
            self._fail(b"{}", out)
        details = response.incomplete_details
        if status == "incomplete" and details is not None and details.reason:
            status = f"incomplete:{short(details.reason)}"
        out.append(ResponseEnded(status, complete=not self._failed and status != "cancelled"))

    def _cut_open_calls(self, out: list[StreamEvent]) -> None:
        for state in self._items.values():
            if state.tool is not None and not state.is_done:
                state.is_done = True
                out.append(ToolCallEnded(state.tool, truncated=True))

    def _fail(self, error: bytes | msgspec.Raw, out: list[StreamEvent]) -> None:
        self._failed = True
        out.append(errors.decoded_error(error))

    def _read_text(self, delta: _DeltaEvent, out: list[StreamEvent]) -> None:
        state = self._items.get(delta.output_index)
        if state is not None:
            state.has_content = True
            if state.is_commentary:
                self._reason(delta.output_index, (ThoughtSource.COMMENTARY, delta.content_index), delta.delta, out)
                return
        if delta.delta:
            out.append(TextDelta(len(delta.delta)))

    def _add_arguments(self, output_index: int, fragment: str, out: list[StreamEvent]) -> None:
        state = self._items.get(output_index)
        if state is not None and state.tool is not None and fragment:
            state.has_content = True
            out.append(ToolCallDelta(state.tool, fragment))

    def _reason(self, output_index: int, part: tuple[ThoughtSource, int], text: str, out: list[StreamEvent]) -> None:
        state = self._items.get(output_index) or self._new_item(output_index, "reasoning")
        if text:
            index = state.parts.get(part)
            if index is None:
                index = state.parts[part] = self._next_part()
            out.append(ReasoningDelta(index, part[0], text))

    def _end_reasoning(self, output_index: int, part: tuple[ThoughtSource, int], out: list[StreamEvent]) -> None:
        state = self._items.get(output_index)
        index = None if state is None else state.parts.get(part)
        if state is not None and index is not None:
            state.parts[part] = None
            out.append(ReasoningEnded(index))

    def _new_item(self, output_index: int, kind: str) -> _ItemState:
        self._next_part()
        state = self._items[output_index] = _ItemState(kind)
        return state

    def _begin_item(self, output_index: int, raw: msgspec.Raw, out: list[StreamEvent]) -> _ItemState:
        kind = decode(_KIND, raw).type
        state = self._new_item(output_index, kind)
        tool_kind = TOOL_KINDS.get(kind)
        if kind == "message":
            state.is_commentary = decode(_ITEM, raw).phase == "commentary"
        elif tool_kind is not None:
            item = decode(_ITEM, raw)
            state.tool = self._next_part()
            out.append(
                ToolCallStarted(
                    state.tool, item.name or kind, item.call_id or "", item.id or "", tool_kind, item.server_label or ""
                )
            )
        elif kind != "reasoning" and kind not in OTHER_ITEMS:
            out.append(unknown("item", kind))
        return state

    def _finish_item(self, output_index: int, raw: msgspec.Raw, told_ids: AbstractSet[str], out: list[StreamEvent]) -> None:
        """Tell what is left to tell of a whole item; nothing of one whose id is among `told_ids`."""
        kind = decode(_KIND, raw).type
        state = self._items.get(output_index)
        item = decode(_ITEM, raw) if kind in TOOL_KINDS or kind in {"message", "reasoning"} else OutputItem()
        ids = {id_ for id_ in (item.id, item.call_id) if id_}
        if state is None or state.is_done or state.kind != kind:
            if not ids.isdisjoint(told_ids):
                return
            state = self._begin_item(output_index, raw, out)
        state.is_done = True
        self._done_ids |= ids
        if state.tool is not None:
            if not state.has_content and (text := arguments_of(item)):
                out.append(ToolCallDelta(state.tool, text))
            out.append(ToolCallEnded(state.tool, truncated=item.status in _UNFINISHED))
            return
        if kind == "reasoning":
            self._finish_parts(output_index, ThoughtSource.REASONING_SUMMARY, item.summary, out)
            self._finish_parts(output_index, ThoughtSource.REASONING_CONTENT, item.content, out)
        elif kind == "message" and item.phase == "commentary":
            texts = [part for part in item.content or () if part.type == "output_text"]
            self._finish_parts(output_index, ThoughtSource.COMMENTARY, texts, out)
        elif kind == "message" and not state.has_content:
            out.extend(TextDelta(len(said)) for part in item.content or () if (said := part.text or part.refusal))

    def _finish_parts(
        self, output_index: int, source: ThoughtSource, texts: list[ItemText] | None, out: list[StreamEvent]
    ) -> None:
        """End the reasoning parts of an item, and tell those that no delta told."""
        parts = self._items[output_index].parts
        for number, text in enumerate(texts or ()):
            if (source, number) not in parts and text.text:
                self._reason(output_index, (source, number), text.text, out)
        for part in [part for part in parts if part[0] is source]:
            self._end_reasoning(output_index, part, out)

    def _next_part(self) -> int:
        if self._parts >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} output items and reasoning parts")
        self._parts += 1
        return self._parts - 1


class _Request(requests.Request):
    input: list[msgspec.Raw] | str | None = None


class _InputItem(msgspec.Struct):
    type: msgspec.Raw = requests.NOTHING
    role: msgspec.Raw = requests.NOTHING
    content: msgspec.Raw = requests.NOTHING
    call_id: msgspec.Raw = requests.NOTHING


class _InputPart(msgspec.Struct):
    type: msgspec.Raw = requests.NOTHING
    text: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)
_INPUT_ITEM: Final = msgspec.json.Decoder(_InputItem)
_INPUT_PART: Final = msgspec.json.Decoder(_InputPart)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    return requests.read(body, _REQUEST, _last_item, requests.session_candidates)


def _last_item(request: _Request) -> tuple[str | None, str]:
    """Return the prompt and the id of the answered tool call that the last input item holds."""
    if isinstance(request.input, str):
        return request.input, ""
    if not request.input:
        return None, ""
    last = decode(_INPUT_ITEM, request.input[-1])
    if (text_of(last.type) or "").endswith("_output"):
        return None, text_of(last.call_id) or ""
    if text_of(last.role) != "user" or is_null(last.content):
        return None, ""
    if starts_with(last.content, b'"'):
        return text_of(last.content), ""
    parts = [decode(_INPUT_PART, part) for part in decode(requests.ITEMS, last.content)]
    texts = [text for part in parts if text_of(part.type) == "input_text" and (text := text_of(part.text)) is not None]
    return ("\n".join(texts) if texts else None), ""


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


def message_parser(max_event_bytes: int) -> MessageBody:  # noqa: ARG001 (who frames messages bounds them)
    """Return the parser of a response that comes as messages of a WebSocket, one event each."""
    return MessageBody(_Reader())


API: Final = Api(
    name="openai.responses",
    operation="chat",
    read_request=_read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, _Reader()),
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, _Reader().read_document),
    read_error=_read_error,
)
