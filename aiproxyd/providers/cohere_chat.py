"""Cohere's own chat (`POST /v2/chat`). Its OpenAI-compatible one is read as OpenAI's.

Facts:
- Requests are as in chat completions. An answer has one `message` with `content` of texts and thinking, a `tool_plan`, and `tool_calls`.
- A stream is `message-start`, for each piece of content `content-start`, `content-delta`…, `content-end`, likewise `tool-call-…`, with
  `tool-plan-delta` before them, and `message-end`, which has the finish reason and the usage.
- Content and calls are numbered each for themselves.

Source:
    https://docs.cohere.com/reference/chat
    https://docs.cohere.com/reference/chat-stream
    https://docs.cohere.com/docs/streaming
"""

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
    UsageReported,
)
from aiproxyd.providers import errors, openai_chat
from aiproxyd.providers.api import Api
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.providers.call_ends import CallEnds
from aiproxyd.providers.cohere_usage import Usage, token_usage
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, decode, unknown
from aiproxyd.wire.event_stream import ServerSentEvent

_QUIET: Final = frozenset({"citation-start", "citation-end", "debug"})
_PLAN: Final = -1
"""Index of the tool plan among the pieces of content."""
_FAILED: Final = frozenset({"ERROR", "TIMEOUT"})


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Content(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None


class _Message(msgspec.Struct):
    content: _Content | list[_Content] | None = None
    tool_plan: str | None = None
    tool_calls: _ToolCall | list[_ToolCall] | None = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    id: str | None = None
    delta: _Delta | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Usage | None = None


class _Kind(msgspec.Struct):
    type: str = ""


_KIND: Final = msgspec.json.Decoder(_Kind)
_EVENT: Final = msgspec.json.Decoder(_Event)
_ANSWER: Final = msgspec.json.Decoder(_Answer)

_KINDS: Final = frozenset(
    {
        "message-start",
        "content-start",
        "content-delta",
        "content-end",
        "tool-plan-delta",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "message-end",
    }
)


class _Reader:
    """One answer, streamed or not."""

    __slots__ = ("_call_ends", "_calls", "_ended", "_parts", "_thoughts")

    def __init__(self) -> None:
        self._parts = 0
        """Tool calls and reasonings so far: the next index of an event."""
        self._thoughts: dict[int, int] = {}
        """Open reasonings: the content's index to ours."""
        self._calls: dict[int, int] = {}
        """Open tool calls likewise."""
        self._call_ends = CallEnds()
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        if not event.data or event.data == b"[DONE]":
            return
        kind = decode(_KIND, event.data).type
        if kind not in _KINDS:
            if kind not in _QUIET:
                out.append(unknown("event", kind or event.event))
            return
        data = decode(_EVENT, event.data)
        delta = data.delta or _Delta()
        message = delta.message or _Message()
        match kind:
            case "content-start" | "content-delta":
                for content in _several(message.content):
                    self._read_content(data.index, content, out)
            case "content-end":
                self._end_thought(data.index, out)
            case "tool-plan-delta":
                self._think(_PLAN, message.tool_plan, out)
            case "tool-call-start":
                self._end_thought(_PLAN, out)
                for call in _several(message.tool_calls):
                    self._start_call(data.index, call, out)
            case "tool-call-delta":
                for call in _several(message.tool_calls):
                    self._add_arguments(data.index, call, out)
            case "tool-call-end":
                if data.index in self._calls:
                    self._call_ends.hold(self._calls.pop(data.index), out)
            case "message-start":
                out.append(ResponseStarted(data.id or ""))
            case _:
                self._end(delta.finish_reason or "", delta.usage, delta.error, out)

    def finish(self, out: list[StreamEvent]) -> None:
        """Say nothing: `message-end` has said it."""

    def read_document(self, body: bytes) -> list[StreamEvent]:
        answer = decode(_ANSWER, body)
        if answer.message is None:
            raise MalformedBody("the document is no answer: it has no message")
        out: list[StreamEvent] = [ResponseStarted(answer.id or "")]
        self._think(_PLAN, answer.message.tool_plan, out)
        self._end_thought(_PLAN, out)
        for index, content in enumerate(_several(answer.message.content)):
            self._read_content(index, content, out)
            self._end_thought(index, out)
        for index, call in enumerate(_several(answer.message.tool_calls)):
            self._start_call(index, call, out)
        self._end(answer.finish_reason or "", answer.usage, None, out)
        return out

    def _read_content(self, index: int, content: _Content, out: list[StreamEvent]) -> None:
        if content.text:
            out.append(TextDelta(len(content.text)))
        self._think(index, content.thinking, out)
        if content.type not in {"", "text", "thinking"}:
            out.append(unknown("content", content.type))

    def _think(self, index: int, text: str | None, out: list[StreamEvent]) -> None:
        if text:
            if index not in self._thoughts:
                self._thoughts[index] = self._next_part()
            out.append(ReasoningDelta(self._thoughts[index], ThoughtSource.THINKING, text))

    def _end_thought(self, index: int, out: list[StreamEvent]) -> None:
        if index in self._thoughts:
            out.append(ReasoningEnded(self._thoughts.pop(index)))

    def _start_call(self, index: int, call: _ToolCall, out: list[StreamEvent]) -> None:
        self._call_ends.release(out)
        function = call.function or _Function()
        self._calls[index] = self._next_part()
        out.append(ToolCallStarted(self._calls[index], function.name or "", call.id or ""))
        self._add_arguments(index, call, out)

    def _add_arguments(self, index: int, call: _ToolCall, out: list[StreamEvent]) -> None:
        if index in self._calls and call.function is not None and call.function.arguments:
            out.append(ToolCallDelta(self._calls[index], call.function.arguments))

    def _next_part(self) -> int:
        if self._parts >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} tool calls and reasonings")
        self._parts += 1
        return self._parts - 1

    def _end(self, finish_reason: str, usage: Usage | None, error: str | None, out: list[StreamEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        for index in self._calls.values():
            self._call_ends.hold(index, out)
        self._call_ends.release(out, is_cut=finish_reason == "MAX_TOKENS")
        found = token_usage(usage) if usage is not None else None
        if found is not None:
            out.append(UsageReported(found, final=True))
        failed = finish_reason in _FAILED or bool(error)
        if failed:
            out.append(errors.reported_error({"message": error or "", "type": finish_reason.lower()}))
        out.append(ResponseEnded(finish_reason, complete=not failed))


def _several[T](value: T | list[T] | None) -> list[T]:
    """Return the entries of what a document has as a list and an event as one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="cohere")


API: Final = Api(
    name="cohere.chat",
    operation="chat",
    read_request=openai_chat.API.read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, _Reader()),
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, _Reader().read_document),
    read_error=_read_error,
)
