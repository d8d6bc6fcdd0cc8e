"""Amazon Bedrock's InvokeModel and InvokeModelWithResponseStream (`POST /model/MODEL/invoke`, `/invoke-with-response-stream`).

Facts:
- Bodies are the model maker's own: Anthropic's messages without `model` and `stream`, OpenAI's chat completions, Nova's form of Converse,
  or plain text by a maker's names. Which of them is told by the first event, or by the document.
- A stream is binary messages of type `chunk` with the maker's event in base64. The last has `amazon-bedrock-invocationMetrics` besides;
  its counts exclude what was read from and written to the cache, as those of the headers of an answer in one document do.
- A maker's own figures tell more; Bedrock's are taken where there are none.

Source:
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
    https://platform.claude.com/docs/en/build-with-claude/claude-on-amazon-bedrock
"""

from typing import Final, Protocol

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ResponseEnded, StreamEvent, UsageReported
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers import anthropic_messages, openai_chat, requests
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.bedrock_converse import ConverseReader, last_message
from aiproxyd.providers.bedrock_errors import read_error, stream_error
from aiproxyd.providers.bedrock_text import TextReader, prompt_of
from aiproxyd.providers.bodies import DocumentBody
from aiproxyd.providers.decoding import Count, decode, is_null, starts_with, text_of, unknown
from aiproxyd.providers.framed_bodies import FramedBody
from aiproxyd.providers.paths import model_of
from aiproxyd.wire.aws_event_stream import AwsEventMessage, AwsEventStreamDecoder
from aiproxyd.wire.event_stream import ServerSentEvent


class _Chunk(msgspec.Struct):
    bytes: bytes
    """Base64 on the wire."""


class _Metrics(msgspec.Struct, rename="camel"):
    input_token_count: Count = None
    output_token_count: Count = None
    cache_read_input_token_count: Count = None
    cache_write_input_token_count: Count = None


class _Shape(msgspec.Struct, rename="camel"):
    """The members by which one maker's events and documents are told from another's."""

    type: msgspec.Raw = requests.NOTHING
    choices: msgspec.Raw = requests.NOTHING
    output: msgspec.Raw = requests.NOTHING
    message_start: msgspec.Raw = requests.NOTHING
    content_block_start: msgspec.Raw = requests.NOTHING
    content_block_delta: msgspec.Raw = requests.NOTHING
    content_block_stop: msgspec.Raw = requests.NOTHING
    message_stop: msgspec.Raw = requests.NOTHING
    metadata: msgspec.Raw = requests.NOTHING
    metrics: _Metrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_SHAPE: Final = msgspec.json.Decoder(_Shape)
_CONVERSE_EVENTS: Final = {
    "content_block_delta": "contentBlockDelta",
    "content_block_start": "contentBlockStart",
    "content_block_stop": "contentBlockStop",
    "message_start": "messageStart",
    "message_stop": "messageStop",
    "metadata": "metadata",
}


class _MakerReader(Protocol):
    """What the events of one maker's models mean."""

    def read(self, data: bytes, shape: _Shape, out: list[StreamEvent]) -> None: ...

    def finish(self, out: list[StreamEvent]) -> None: ...


class _Events:
    """Anthropic's and OpenAI's events, which their own readers read."""

    __slots__ = ("_reader",)

    def __init__(self, reader: anthropic_messages.MessageReader | openai_chat.CompletionReader) -> None:
        self._reader = reader

    def read(self, data: bytes, shape: _Shape, out: list[StreamEvent]) -> None:  # noqa: ARG002 (their readers know better)
        self._reader.read(ServerSentEvent("message", data), out)

    def finish(self, out: list[StreamEvent]) -> None:
        self._reader.finish(out)


class _Nova:
    """Events as ConverseStream has them, each an object with one member."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = ConverseReader()

    def read(self, data: bytes, shape: _Shape, out: list[StreamEvent]) -> None:
        known = False
        for field, kind in _CONVERSE_EVENTS.items():
            raw: msgspec.Raw = getattr(shape, field)
            if starts_with(raw, b"{"):
                known = True
                self._reader.read_event(kind, raw, out)
        if not known and shape.metrics is None:
            fields = decode(requests.FIELDS, data)
            out.append(unknown("event", next(iter(fields), "")))

    def finish(self, out: list[StreamEvent]) -> None:
        self._reader.finish(out)


class _Text:
    """Plain text by a maker's names. Its figures are of the pieces so far, so Bedrock's count."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = TextReader()

    def read(self, data: bytes, shape: _Shape, out: list[StreamEvent]) -> None:  # noqa: ARG002 (the data has it all)
        before = self._reader.usage
        self._reader.read(data, out)
        usage = self._reader.usage
        if usage is not None and usage != before:
            out.append(UsageReported(usage))

    def finish(self, out: list[StreamEvent]) -> None:
        if self._reader.stop_reason:
            out.append(ResponseEnded(self._reader.stop_reason))


class _Reader:
    """One streamed answer."""

    __slots__ = ("_failed", "_has_ended", "_is_reported", "_maker")

    def __init__(self) -> None:
        self._maker: _MakerReader | None = None
        """None before the first chunk."""
        self._is_reported = False
        """Whether the maker's own events had the whole usage."""
        self._has_ended = False
        self._failed = False

    def read(self, message: AwsEventMessage, out: list[StreamEvent]) -> None:
        error = stream_error(message)
        if error is not None:
            self._failed = True
            out.append(error)
            return
        kind = message.headers.get(":event-type", "")
        if kind != "chunk":
            out.append(unknown("event", kind))
            return
        data = decode(_CHUNK, message.payload).bytes
        shape = decode(_SHAPE, data)
        if self._maker is None:
            self._maker = _maker_of(shape)
        self._maker.read(data, shape, out)
        self._note(out)
        if shape.metrics is not None:
            self._end(shape.metrics, out)

    def finish(self, out: list[StreamEvent]) -> None:
        self._end(None, out)

    def _note(self, out: list[StreamEvent]) -> None:
        """Take note of what a maker's events told already."""
        for event in out:
            if isinstance(event, UsageReported):
                self._is_reported = not isinstance(self._maker, _Text)
            elif isinstance(event, ResponseEnded):
                self._has_ended = True

    def _end(self, metrics: _Metrics | None, out: list[StreamEvent]) -> None:
        """Say what is left to say when the metrics came, or the body's end without them."""
        found = _usage_of(metrics) if metrics is not None else None
        if found is not None and not self._is_reported:
            out.append(UsageReported(found, final=True))
        if not self._has_ended and self._maker is not None:
            self._maker.finish(out)
            self._note(out)
        if not self._has_ended and (self._failed or metrics is not None):
            # The metrics are Bedrock's last word, whatever the maker leaves out.
            self._has_ended = True
            out.append(ResponseEnded("error" if self._failed else "", complete=not self._failed))


def _is_message(shape: _Shape) -> bool:
    """Return whether this is Anthropic's, by the type that only its messages have; its older completions are plain text."""
    return text_of(shape.type) not in {None, "completion"}


def _maker_of(shape: _Shape) -> _MakerReader:
    if _is_message(shape):
        return _Events(anthropic_messages.MessageReader())
    if not is_null(shape.choices):
        return _Events(openai_chat.CompletionReader())
    if any(starts_with(getattr(shape, field), b"{") for field in _CONVERSE_EVENTS):
        return _Nova()
    return _Text()


def _usage_of(metrics: _Metrics) -> TokenUsage | None:
    found = TokenUsage(
        input_tokens=token_count(metrics.input_token_count),
        output_tokens=token_count(metrics.output_token_count),
        cache_read_input_tokens=token_count(metrics.cache_read_input_token_count),
        cache_write_input_tokens=token_count(metrics.cache_write_input_token_count),
    )
    return found if found.total_input_tokens or found.output_tokens else None


def _read_document(body: bytes) -> list[StreamEvent]:
    shape = decode(_SHAPE, body)
    if _is_message(shape):
        return anthropic_messages.MessageReader().read_document(body)
    if not is_null(shape.choices):
        return openai_chat.CompletionReader().read_document(body)
    if starts_with(shape.output, b"{"):
        return ConverseReader().read_document(body)
    reader = TextReader()
    out: list[StreamEvent] = []
    reader.read(body, out)
    if reader.usage is not None:
        out.append(UsageReported(reader.usage, final=True))
    out.append(ResponseEnded(reader.stop_reason))
    return out


_COUNTS: Final = {
    "x-amzn-bedrock-input-token-count": "input_token_count",
    "x-amzn-bedrock-output-token-count": "output_token_count",
    "x-amzn-bedrock-cache-read-input-token-count": "cache_read_input_token_count",
    "x-amzn-bedrock-cache-write-input-token-count": "cache_write_input_token_count",
}


def _read_head(head: ResponseHead) -> list[StreamEvent]:
    metrics = _Metrics()
    for name, field in _COUNTS.items():
        value = head.headers.first(name) or ""
        if value.isascii() and value.isdigit() and len(value) <= 13:
            setattr(metrics, field, int(value))
    found = _usage_of(metrics)
    return [] if found is None else [UsageReported(found, final=True)]


class _Request(requests.Request):
    messages: list[msgspec.Raw] | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:
    facts = anthropic_messages.API.read_request(body, head)
    if facts.prompt is None and not facts.correlating_tool_call_id:
        prompt, call_id = _other_prompt(body, head)
        facts = msgspec.structs.replace(facts, prompt=prompt, correlating_tool_call_id=call_id)
    return msgspec.structs.replace(
        facts, request_model=model_of(head.path), streaming=head.path.rstrip("/").endswith("-stream")
    )


def _other_prompt(body: bytes, head: RequestHead) -> tuple[str | None, str]:
    """Return what a request that is not Anthropic's asks, and which tool call it answers: Nova's, OpenAI's, or plain text."""
    try:
        request = decode(_REQUEST, body)
        if not request.messages:
            return prompt_of(body), ""
        prompt, call_id = last_message(request.messages)
    except MalformedBody:
        prompt, call_id = None, ""
    return prompt, call_id or openai_chat.API.read_request(body, head).correlating_tool_call_id


def _stream_parser(max_event_bytes: int) -> ResponseParser:
    reader = _Reader()
    return FramedBody(AwsEventStreamDecoder(max_event_bytes), reader.read, reader.finish)


API: Final = Api(
    name="bedrock.invoke_model",
    operation="chat",
    read_request=_read_request,
    stream_parser=_stream_parser,
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, _read_document),
    read_error=read_error,
    stream_types=("application/vnd.amazon.eventstream",),
    read_head=_read_head,
)
