"""Amazon Bedrock's Converse and ConverseStream (`POST /model/MODEL/converse`, `/converse-stream`).

Facts:
- The model is named by the path. The answer has no id of its own; the request's id stands in a header.
- A stream is binary messages whose `:event-type` tells what their JSON payload is: `messageStart`, for each block `contentBlockStart`
  (tools only), `contentBlockDelta`…, `contentBlockStop`, then `messageStop` and `metadata`, which has the usage. Exceptions are messages, too.
- `inputTokens` excludes what was read from and written to the cache.
- Each value is an object with one member that names its kind; the payload's `p` is padding.
- Amazon's Nova models speak the same events through InvokeModel, with two of the figures named otherwise.

Source:
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
"""

from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import (
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
    UsageReported,
)
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers import requests
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.bedrock_errors import read_error, stream_error
from aiproxyd.providers.bodies import DocumentBody
from aiproxyd.providers.call_ends import CallEnds
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, Count, decode, is_null, json_text, short, starts_with, text_of, unknown
from aiproxyd.providers.framed_bodies import FramedBody
from aiproxyd.providers.paths import model_of
from aiproxyd.wire.aws_event_stream import AwsEventMessage, AwsEventStreamDecoder

_OTHER_BLOCKS: Final = frozenset(
    {"image", "document", "video", "audio", "toolResult", "guardContent", "cachePoint", "searchResult", "citation"}
)
"""Blocks and deltas that are known and hold nothing to record."""


class _ToolUse(msgspec.Struct, rename="camel"):
    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    input: msgspec.Raw = requests.NOTHING


_LIMITS: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Stop reasons that may come in the middle of a tool's input."""


class _ReasoningText(msgspec.Struct):
    text: str | None = None


class _Reasoning(msgspec.Struct, rename="camel"):
    text: str | None = None
    reasoning_text: _ReasoningText | None = None


class _Cited(msgspec.Struct):
    content: list[_ReasoningText] | None = None


class _Block(msgspec.Struct, rename="camel"):
    """A content block, or a piece of one."""

    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None


class _BlockEvent(msgspec.Struct, rename="camel"):
    content_block_index: int = 0
    start: msgspec.Raw = requests.NOTHING
    delta: msgspec.Raw = requests.NOTHING


class _MessageStop(msgspec.Struct, rename="camel"):
    stop_reason: str | None = None


class _CacheDetail(msgspec.Struct, rename="camel"):
    ttl: str | None = None
    input_tokens: Count = None


class _Usage(msgspec.Struct, rename="camel"):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_write_input_tokens: Count = None
    cache_read_input_token_count: Count = None
    cache_write_input_token_count: Count = None
    cache_details: list[_CacheDetail] | None = None


class _Router(msgspec.Struct, rename="camel"):
    invoked_model_id: str | None = None


class _Trace(msgspec.Struct, rename="camel"):
    prompt_router: _Router | None = None


class _Tier(msgspec.Struct):
    type: str | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    usage: _Usage | None = None
    trace: _Trace | None = None
    service_tier: _Tier | None = None


class _Message(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


class _Output(msgspec.Struct):
    message: _Message | None = None


class _Document(_Metadata, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None


_BLOCK: Final = msgspec.json.Decoder(_Block)
_BLOCK_EVENT: Final = msgspec.json.Decoder(_BlockEvent)
_MESSAGE_STOP: Final = msgspec.json.Decoder(_MessageStop)
_METADATA: Final = msgspec.json.Decoder(_Metadata)
_DOCUMENT: Final = msgspec.json.Decoder(_Document)


class ConverseReader:
    """One answer, streamed or not."""

    __slots__ = ("_call_ends", "_ended", "_failed", "_open", "_stop_reason", "_stopped", "is_reported")

    def __init__(self) -> None:
        self._open: dict[int, bool | None] = {}
        """Blocks of tools and reasoning that have begun, by index: whether a tool has arguments; None for reasoning."""
        self._call_ends = CallEnds()
        self._stop_reason = ""
        self._stopped = False
        self._failed = False
        self._ended = False
        self.is_reported = False
        """Whether usage was reported."""

    def read(self, message: AwsEventMessage, out: list[StreamEvent]) -> None:
        """Append what `message` says to `out`.

        Raises:
            MalformedBody: Its payload is not what the API documents.
        """
        error = stream_error(message)
        if error is None:
            self.read_event(message.headers.get(":event-type", ""), message.payload, out)
        else:
            self._failed = True
            out.append(error)

    def read_event(self, kind: str, payload: bytes | msgspec.Raw, out: list[StreamEvent]) -> None:
        """Append what an event of this `kind` says.

        Raises:
            MalformedBody: As `read`.
        """
        match kind:
            case "contentBlockDelta":
                event = decode(_BLOCK_EVENT, payload)
                self._read_block(event.content_block_index, event.delta, out)
            case "contentBlockStart":
                event = decode(_BLOCK_EVENT, payload)
                self._read_block(event.content_block_index, event.start, out)
            case "contentBlockStop":
                self._stop_block(decode(_BLOCK_EVENT, payload).content_block_index, out)
            case "messageStart":
                pass
            case "messageStop":
                self._stop_reason = decode(_MESSAGE_STOP, payload).stop_reason or ""
                self._stopped = True
                self._release_call(out)
            case "metadata":
                self._read_metadata(decode(_METADATA, payload), out)
                if self._stopped:
                    self._end(out)
            case _:
                out.append(unknown("event", kind))

    def finish(self, out: list[StreamEvent]) -> None:
        """Append what only the end of the stream says."""
        if self._stopped or self._failed:
            self._end(out)

    def read_document(self, body: bytes) -> list[StreamEvent]:
        """Return what a whole answer says.

        Raises:
            MalformedBody: It is not what the API documents.
        """
        document = decode(_DOCUMENT, body)
        if document.output is None:
            raise MalformedBody("the document is no answer: it has no output")
        out: list[StreamEvent] = []
        blocks = document.output.message.content if document.output.message is not None else None
        for index, raw in enumerate(blocks or ()):
            self._read_block(index, raw, out)
            self._stop_block(index, out)
        self._stop_reason = document.stop_reason or ""
        self._release_call(out)
        self._read_metadata(document, out)
        self._end(out)
        return out

    def _read_block(self, index: int, raw: msgspec.Raw, out: list[StreamEvent]) -> None:
        if index not in self._open:
            self._call_ends.release(out)
        block = decode(_BLOCK, raw)
        if block.text is not None:
            if block.text:
                out.append(TextDelta(len(block.text)))
        elif block.tool_use is not None:
            self._read_tool(index, block.tool_use, out)
        elif block.reasoning_content is not None:
            reasoning = block.reasoning_content
            text = reasoning.text or (reasoning.reasoning_text.text if reasoning.reasoning_text is not None else None)
            if text:
                self._begin(index, None)
                out.append(ReasoningDelta(index, ThoughtSource.THINKING, text))
        elif block.citations_content is not None:
            out.extend(TextDelta(len(piece.text)) for piece in block.citations_content.content or () if piece.text)
        else:
            names = decode(requests.FIELDS, raw)
            if names and _OTHER_BLOCKS.isdisjoint(names):
                out.append(unknown("block", next(iter(names))))

    def _read_tool(self, index: int, tool: _ToolUse, out: list[StreamEvent]) -> None:
        if index not in self._open and tool.name is not None:
            self._begin(index, False)
            kind = ToolKind.HOSTED if tool.type == "server_tool_use" else ToolKind.FUNCTION
            out.append(ToolCallStarted(index, tool.name, tool.tool_use_id or "", kind=kind))
        if self._open.get(index) is not None and not is_null(tool.input):
            # A whole block has the object itself, a piece of one a part of its text.
            text = text_of(tool.input)
            fragment = json_text(tool.input) if text is None else text
            if fragment:
                self._open[index] = True
                out.append(ToolCallDelta(index, fragment))

    def _begin(self, index: int, has_arguments: bool | None) -> None:  # noqa: FBT001 (the state itself)
        if index not in self._open and len(self._open) >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} content blocks are open")
        self._open.setdefault(index, has_arguments)

    def _stop_block(self, index: int, out: list[StreamEvent]) -> None:
        if index not in self._open:
            return
        has_arguments = self._open.pop(index)
        if has_arguments is None:
            out.append(ReasoningEnded(index))
            return
        if not has_arguments:
            # A tool without parameters.
            out.append(ToolCallDelta(index, "{}"))
        self._call_ends.hold(index, out)

    def _release_call(self, out: list[StreamEvent]) -> None:
        self._call_ends.release(out, is_cut=self._stop_reason in _LIMITS)

    def _read_metadata(self, metadata: _Metadata, out: list[StreamEvent]) -> None:
        router = metadata.trace.prompt_router if metadata.trace is not None else None
        if router is not None and router.invoked_model_id:
            out.append(ResponseStarted("", router.invoked_model_id))
        if metadata.usage is not None and (found := _token_usage(metadata.usage)) is not None:
            self.is_reported = True
            tier = metadata.service_tier.type if metadata.service_tier is not None else None
            out.append(UsageReported(found, final=True, metadata={"service_tier": short(tier)} if tier else {}))

    def _end(self, out: list[StreamEvent]) -> None:
        if not self._ended:
            self._ended = True
            self._release_call(out)
            out.append(ResponseEnded(self._stop_reason or ("error" if self._failed else ""), complete=not self._failed))


def _token_usage(usage: _Usage) -> TokenUsage | None:
    found = TokenUsage(
        input_tokens=token_count(usage.input_tokens),
        output_tokens=token_count(usage.output_tokens),
        cache_read_input_tokens=token_count(usage.cache_read_input_tokens or usage.cache_read_input_token_count),
        cache_write_input_tokens=token_count(usage.cache_write_input_tokens or usage.cache_write_input_token_count),
    )
    if not found.total_input_tokens and not found.output_tokens:
        return None
    written = found.cache_write_input_tokens
    lives: dict[str | None, int] = {}
    for detail in usage.cache_details or ():
        lives[detail.ttl] = lives.get(detail.ttl, 0) + token_count(detail.input_tokens)
    long = min(lives.get("1h", 0), written)
    return msgspec.structs.replace(
        found, cache_write_1h_input_tokens=long, cache_write_5m_input_tokens=min(lives.get("5m", 0), written - long)
    )


class _Request(requests.Request):
    messages: list[msgspec.Raw] | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)


def read_request(body: bytes, head: RequestHead) -> RequestFacts:
    """As `Api.read_request`."""
    facts = requests.read(body, _REQUEST, lambda request: last_message(request.messages), lambda _: ("", {}))
    return msgspec.structs.replace(
        facts, request_model=model_of(head.path), streaming=head.path.rstrip("/").endswith("-stream")
    )


def last_message(messages: list[msgspec.Raw] | None) -> tuple[str | None, str]:
    """Return the prompt and the id of the answered tool call that the last message holds.

    Raises:
        MalformedBody: The message is not what the API documents.
    """
    if not messages:
        return None, ""
    last = decode(requests.FIELDS, messages[-1])
    content = last.get("content", requests.NOTHING)
    if is_null(content):
        return None, ""
    blocks = [decode(requests.FIELDS, block) for block in decode(requests.ITEMS, content)]
    blocks.reverse()
    prompt = next((text for block in blocks if (text := _text_of_block(block)) is not None), None)
    call_id = next(
        (id_ for block in blocks if (id_ := requests.nested_hint(block.get("toolResult", requests.NOTHING), "toolUseId"))), ""
    )
    return (prompt if text_of(last.get("role", requests.NOTHING)) == "user" else None), call_id


def _text_of_block(block: dict[str, msgspec.Raw]) -> str | None:
    guarded = block.get("guardContent", requests.NOTHING)
    if starts_with(guarded, b"{"):
        # The text to guard is the person's own; it has its text one level deeper.
        inner = decode(requests.FIELDS, guarded).get("text", requests.NOTHING)
        return text_of(decode(requests.FIELDS, inner).get("text", requests.NOTHING)) if starts_with(inner, b"{") else None
    return text_of(block.get("text", requests.NOTHING))


def _read_head(head: ResponseHead) -> list[StreamEvent]:
    request_id = head.headers.first("x-amzn-requestid")
    return [ResponseStarted(request_id[: requests.MAX_HINT_CHARACTERS])] if request_id else []


def _stream_parser(max_event_bytes: int) -> ResponseParser:
    reader = ConverseReader()
    return FramedBody(AwsEventStreamDecoder(max_event_bytes), reader.read, reader.finish)


API: Final = Api(
    name="bedrock.converse",
    operation="chat",
    read_request=read_request,
    stream_parser=_stream_parser,
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, ConverseReader().read_document),
    read_error=read_error,
    stream_types=("application/vnd.amazon.eventstream",),
    read_head=_read_head,
)
