"""Anthropic's Messages API (`POST /v1/messages`), also as Copilot and others serve it.

Facts:
- A stream is `message_start`, for each block `content_block_start`, `content_block_delta`…, `content_block_stop`, then
  `message_delta` and `message_stop`; `ping` and `error` may come anywhere. New kinds of each may be added at any time.
- Figures are `anthropic_usage`'s matter.

Source:
    https://platform.claude.com/docs/en/build-with-claude/streaming
    https://platform.claude.com/docs/en/api/messages
"""

import re
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
    ToolCallStarted,
    ToolKind,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.providers import errors, requests
from aiproxyd.providers.anthropic_usage import Usage, merge, usage_reported
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.providers.call_ends import CallEnds
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, decode, is_null, json_text, starts_with, text_of, unknown
from aiproxyd.wire.event_stream import ServerSentEvent

_TOOL_KINDS: Final = {
    "tool_use": ToolKind.FUNCTION,
    "server_tool_use": ToolKind.HOSTED,
    "mcp_tool_use": ToolKind.HOSTED,
}
_OTHER_BLOCKS: Final = frozenset(
    {
        "text",
        "thinking",
        "redacted_thinking",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "advisor_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_result",
        "mcp_tool_listing",
        "container_upload",
        "compaction",
        "fallback",
    }
)
"""Blocks that are known and hold nothing to record, but for text and thinking."""
_LIMITS: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Stop reasons that may come in the middle of a tool's input."""
_OTHER_DELTAS: Final = frozenset({"signature_delta", "citations_delta", "compaction_delta"})

MAX_TRAILING_SYSTEM_MESSAGES: Final = 8
"""So many system messages after the last one of the conversation are passed over; Claude Code sends one or two."""


class _Message(msgspec.Struct):
    type: str = "message"
    id: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    error: msgspec.Raw = requests.NOTHING


class _Block(msgspec.Struct):
    type: str = ""
    id: str | None = None
    name: str | None = None
    server_name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    text: str | None = None
    thinking: str | None = None


class _Kind(msgspec.Struct):
    type: str = ""


class _MessageStart(msgspec.Struct):
    message: _Message


class _BlockStart(msgspec.Struct):
    content_block: msgspec.Raw
    index: int = 0


class _BlockStop(msgspec.Struct):
    index: int = 0


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None


class _BlockDelta(msgspec.Struct):
    delta: _Delta
    index: int = 0


class _BlockDeltaKind(msgspec.Struct):
    delta: _Kind


class _StopDelta(msgspec.Struct):
    stop_reason: str | None = None


class _MessageDelta(msgspec.Struct):
    delta: _StopDelta | None = None
    usage: Usage | None = None


_KIND: Final = msgspec.json.Decoder(_Kind)
_BLOCK: Final = msgspec.json.Decoder(_Block)
_DOCUMENT: Final = msgspec.json.Decoder(_Message)
_MESSAGE_START: Final = msgspec.json.Decoder(_MessageStart)
_BLOCK_START: Final = msgspec.json.Decoder(_BlockStart)
_BLOCK_DELTA: Final = msgspec.json.Decoder(_BlockDelta)
_BLOCK_DELTA_KIND: Final = msgspec.json.Decoder(_BlockDeltaKind)
_BLOCK_STOP: Final = msgspec.json.Decoder(_BlockStop)
_MESSAGE_DELTA: Final = msgspec.json.Decoder(_MessageDelta)


class _OpenTool:
    """A tool block between its start and its stop."""

    __slots__ = ("has_arguments", "input")

    def __init__(self, input_text: str) -> None:
        self.input = input_text
        self.has_arguments = False


class MessageReader:
    """One message, streamed or not."""

    __slots__ = ("_call_ends", "_ended", "_failed", "_final", "_open", "_stop_reason", "_usage")

    def __init__(self) -> None:
        self._open: dict[int, _OpenTool | None] = {}
        """Tool and thinking blocks that have started, by index; None for thinking."""
        self._call_ends = CallEnds()
        self._usage: Usage | None = None
        self._final = False
        self._stop_reason = ""
        self._failed = False
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        data = event.data
        # The data repeats the name; a gateway that leaves out the event line is still understood.
        name = event.event
        if name == "message":
            if data in {b"", b"[DONE]"}:
                return
            name = decode(_KIND, data).type
        match name:
            case "content_block_delta":
                self._read_delta(data, out)
            case "content_block_start":
                start = decode(_BLOCK_START, data)
                self._start_block(start.index, start.content_block, out)
            case "content_block_stop":
                self._stop_block(decode(_BLOCK_STOP, data).index, out)
            case "message_start":
                message = decode(_MESSAGE_START, data).message
                out.append(ResponseStarted(message.id or "", message.model or ""))
                self._report(message.usage, out, is_final=False)
            case "message_delta":
                delta = decode(_MESSAGE_DELTA, data)
                if delta.delta is not None and delta.delta.stop_reason is not None:
                    self._stop_reason = delta.delta.stop_reason
                    self._release_call(out)
                self._report(delta.usage, out, is_final=bool(self._stop_reason))
            case "message_stop":
                self._end(out)
            case "error":
                self._failed = True
                out.append(errors.decoded_error(data))
            case "ping":
                pass
            case _:
                out.append(unknown("event", name))

    def finish(self, out: list[StreamEvent]) -> None:
        if self._failed:
            self._end(out)

    def read_document(self, body: bytes) -> list[StreamEvent]:
        message = decode(_DOCUMENT, body)
        if message.type == "error":
            return [errors.decoded_error(body), ResponseEnded("error", complete=False)]
        if message.type != "message" or message.content is None:
            raise MalformedBody("the document is no message: it has no content")
        out: list[StreamEvent] = [ResponseStarted(message.id or "", message.model or "")]
        for index, block in enumerate(message.content):
            self._start_block(index, block, out)
            self._stop_block(index, out)
        self._stop_reason = message.stop_reason or ""
        self._release_call(out)
        self._report(message.usage, out, is_final=True)
        self._end(out)
        return out

    def _read_delta(self, data: bytes, out: list[StreamEvent]) -> None:
        try:
            event = decode(_BLOCK_DELTA, data)
        except MalformedBody:
            # A kind that is not known may use a known field's name for something else.
            kind = decode(_BLOCK_DELTA_KIND, data).delta.type
            if kind in {"text_delta", "input_json_delta", "thinking_delta"}:
                raise
            self._read_other_delta(kind, out)
            return
        delta = event.delta
        match delta.type:
            case "text_delta":
                if delta.text:
                    out.append(TextDelta(len(delta.text)))
            case "input_json_delta":
                tool = self._open.get(event.index)
                if delta.partial_json and tool is not None:
                    tool.has_arguments = True
                    out.append(ToolCallDelta(event.index, delta.partial_json))
            case "thinking_delta":
                if delta.thinking:
                    out.append(ReasoningDelta(event.index, ThoughtSource.THINKING, delta.thinking))
            case kind:
                self._read_other_delta(kind, out)

    def _read_other_delta(self, kind: str, out: list[StreamEvent]) -> None:
        if kind not in _OTHER_DELTAS:
            out.append(unknown("delta", kind))

    def _release_call(self, out: list[StreamEvent]) -> None:
        self._call_ends.release(out, is_cut=self._stop_reason in _LIMITS)

    def _start_block(self, index: int, raw: msgspec.Raw, out: list[StreamEvent]) -> None:
        self._call_ends.release(out)
        kind = decode(_KIND, raw).type
        tool_kind = _TOOL_KINDS.get(kind)
        if tool_kind is None and kind not in {"text", "thinking"}:
            if kind not in _OTHER_BLOCKS:
                out.append(unknown("block", kind))
            return
        block = decode(_BLOCK, raw)
        if kind == "text":
            if block.text:
                out.append(TextDelta(len(block.text)))
            return
        if len(self._open) >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} content blocks are open")
        if tool_kind is None:
            self._open[index] = None
            if block.thinking:
                out.append(ReasoningDelta(index, ThoughtSource.THINKING, block.thinking))
            return
        self._open[index] = _OpenTool(json_text(block.input))
        out.append(ToolCallStarted(index, block.name or "", block.id or "", "", tool_kind, block.server_name or ""))

    def _stop_block(self, index: int, out: list[StreamEvent]) -> None:
        if index not in self._open:
            return
        tool = self._open.pop(index)
        if tool is None:
            out.append(ReasoningEnded(index))
            return
        if not tool.has_arguments:
            # No fragment came: the block's own input is the whole of it, `{}` for a tool without parameters.
            out.append(ToolCallDelta(index, tool.input))
        self._call_ends.hold(index, out)

    def _report(self, usage: Usage | None, out: list[StreamEvent], *, is_final: bool) -> None:
        if usage is None:
            return
        if self._usage is None:
            self._usage = usage
        else:
            merge(self._usage, usage)
        self._final = is_final
        out.append(usage_reported(self._usage, is_final=is_final))

    def _end(self, out: list[StreamEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        self._release_call(out)
        if self._usage is not None and not self._final and not self._failed:
            out.append(usage_reported(self._usage, is_final=True))
        out.append(ResponseEnded(self._stop_reason or ("error" if self._failed else ""), complete=not self._failed))


_SESSION: Final = re.compile(r"_session_(.+)$")


class _Request(requests.Request):
    messages: list[msgspec.Raw] | None = None


class _LastMessage(msgspec.Struct):
    role: msgspec.Raw = requests.NOTHING
    content: msgspec.Raw = requests.NOTHING


class _RequestBlock(msgspec.Struct):
    type: msgspec.Raw = requests.NOTHING
    text: msgspec.Raw = requests.NOTHING
    tool_use_id: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)
_LAST_MESSAGE: Final = msgspec.json.Decoder(_LastMessage)
_REQUEST_BLOCK: Final = msgspec.json.Decoder(_RequestBlock)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    return requests.read(body, _REQUEST, _last_message, _session)


def _last_message(request: _Request) -> tuple[str | None, str]:
    """Return the prompt and the id of the answered tool call that the last message holds.

    System messages behind it are the tool's: Claude Code puts its environment there for models that take them.
    """
    if not request.messages:
        return None, ""
    last = decode(_LAST_MESSAGE, request.messages[-1])
    for raw in request.messages[-2 : -2 - MAX_TRAILING_SYSTEM_MESSAGES : -1]:
        if text_of(last.role) != "system":
            break
        last = decode(_LAST_MESSAGE, raw)
    is_user = text_of(last.role) == "user"
    if starts_with(last.content, b'"'):
        return (text_of(last.content) if is_user else None), ""
    if is_null(last.content):
        return None, ""
    blocks = [decode(_REQUEST_BLOCK, block) for block in decode(requests.ITEMS, last.content)]
    blocks.reverse()
    prompt = next(
        (text for block in blocks if text_of(block.type) == "text" and (text := text_of(block.text)) is not None), None
    )
    call_id = next(
        (id_ for block in blocks if text_of(block.type) == "tool_result" and (id_ := text_of(block.tool_use_id))), ""
    )
    return (prompt if is_user else None), call_id


def _session(request: requests.Request) -> tuple[str, dict[str, str]]:
    """Return the Claude Code session id in `metadata.user_id`, else that value as a candidate for other clients."""
    user_id = requests.nested_hint(request.metadata, "user_id")
    if not user_id:
        return "", {}
    session_id = ""
    try:
        # Claude Code sends a JSON text; one whose session_id is empty has no session, however the rest looks.
        fields = decode(requests.FIELDS, user_id.encode())
    except MalformedBody:
        if found := _SESSION.search(user_id):
            session_id = found[1].strip()
    else:
        session_id = requests.hint(fields.get("session_id", requests.NOTHING))
    return (session_id, {}) if session_id else ("", {"user_id": user_id})


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="anthropic")


API: Final = Api(
    name="anthropic.messages",
    operation="chat",
    read_request=_read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, MessageReader()),
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, MessageReader().read_document),
    read_error=_read_error,
)
