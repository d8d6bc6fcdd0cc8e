"""Google's `generateContent` and `streamGenerateContent`: the Gemini API, Vertex AI, and Code Assist (cloudcode-pa).

Facts:
- A stream is the same object again and again, each with the next parts: as an event stream with `alt=sse`, else as one JSON array.
  It has no last event; the finish reason stands in the chunk that ends a candidate, together with the final usage.
- The model is named by the path, at Code Assist by the body. Code Assist wraps the request in `request` and each answer in `response`.
- A part is one of text, thought (`thought: true`), functionCall, inlineData, executableCode and others. A call comes whole, unless
  the client asked for its arguments in pieces; it seldom has an id, and none is made up here.
- Search and URL context leave no part: what the provider looked up stands in the candidate's metadata.

Source:
    https://ai.google.dev/api/generate-content
    https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
    https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/code_assist/converter.ts
"""

from typing import Final

import msgspec

from aiproxyd.exceptions import EventTooLarge, MalformedBody
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
    ToolKind,
    UsageReported,
)
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, ResponseParser
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, decode, is_null, json_text, short, starts_with, unknown
from aiproxyd.providers.framed_bodies import FramedBody
from aiproxyd.providers.google_arguments import Arguments, PartialArgument
from aiproxyd.providers.google_contents import read_request
from aiproxyd.providers.google_usage import UsageMetadata, merged, token_usage
from aiproxyd.providers.samples import Samples
from aiproxyd.wire.event_stream import ServerSentEvent
from aiproxyd.wire.json_array import JsonArrayDecoder

_SKIPPED_AT_START: Final = b" \t\r\n\xef\xbb\xbf"

_OTHER_PARTS: Final = frozenset(
    {
        "inlineData",
        "fileData",
        "codeExecutionResult",
        "functionResponse",
        "toolResponse",
        "audioTranscription",
        "text",
        "thought",
        "thoughtSignature",
    }
)
"""Parts that are known and hold nothing to record."""


class _FunctionCall(msgspec.Struct, rename="camel"):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = requests.NOTHING
    partial_args: list[PartialArgument] | None = None
    will_continue: bool | None = None


class _ToolCall(msgspec.Struct, rename="camel"):
    id: str | None = None
    tool_type: str | None = None
    args: msgspec.Raw = requests.NOTHING


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: _FunctionCall | None = None
    executable_code: msgspec.Raw = requests.NOTHING
    tool_call: _ToolCall | None = None


class _Content(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class _Grounding(msgspec.Struct, rename="camel"):
    web_search_queries: list[str] | None = None
    image_search_queries: list[str] | None = None
    retrieval_queries: list[str] | None = None


class _UrlMetadata(msgspec.Struct, rename="camel"):
    retrieved_url: str | None = None


class _UrlContext(msgspec.Struct, rename="camel"):
    url_metadata: list[_UrlMetadata] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    grounding_metadata: _Grounding | None = None
    url_context_metadata: _UrlContext | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    """A chunk of a stream, or a whole response; at Code Assist the envelope of one."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: msgspec.Raw = requests.NOTHING
    response: msgspec.Raw = requests.NOTHING
    trace_id: str | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_PART: Final = msgspec.json.Decoder(_Part)


class _CandidateState:
    """What is open in one candidate."""

    __slots__ = ("arguments", "call", "finish_reason", "reasoning")

    def __init__(self) -> None:
        self.reasoning: int | None = None
        self.call: int | None = None
        """The function call whose arguments come in pieces."""
        self.arguments = Arguments()
        self.finish_reason = ""


class _Reader:
    """One response, streamed or not."""

    __slots__ = (
        "_candidates",
        "_ended",
        "_failed",
        "_finish_reason",
        "_has_tool_calls",
        "_id",
        "_looked_up",
        "_max_argument_characters",
        "_model",
        "_parts",
        "_searches",
        "_usage",
        "_usage_is_final",
    )

    def __init__(self, max_argument_characters: int) -> None:
        self._max_argument_characters = max_argument_characters
        self._id = ""
        self._model = ""
        self._candidates: dict[int, _CandidateState] = {}
        self._parts = 0
        """Tool calls and reasonings so far: the next index."""
        self._looked_up: set[tuple[str, str]] = set()
        """Queries and addresses that were told already: later chunks repeat them."""
        self._searches = 0
        self._has_tool_calls = False
        """The provider's own calls come as parts, so that the candidate's metadata would tell them twice."""
        self._usage: UsageMetadata | None = None
        self._usage_is_final = False
        self._finish_reason = ""
        self._failed = False
        self._ended = False

    @property
    def held_characters(self) -> int:
        """Characters of arguments that are not complete."""
        return sum(state.arguments.characters for state in self._candidates.values())

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        if event.event not in {"message", "error"}:
            out.append(unknown("event", event.event))
        if event.data and event.data != b"[DONE]":
            self.read_chunk(event.data, out)

    def read_chunk(self, data: bytes, out: list[StreamEvent]) -> None:
        chunk = decode(_CHUNK, data)
        trace_id = chunk.trace_id or ""
        if starts_with(chunk.response, b"{"):
            chunk = decode(_CHUNK, chunk.response)
        if not is_null(chunk.error):
            self._failed = True
            out.append(errors.decoded_error(chunk.error))
        response_id = chunk.response_id or trace_id
        if (response_id and not self._id) or (chunk.model_version and not self._model):
            self._id = self._id or response_id
            self._model = self._model or chunk.model_version or ""
            out.append(ResponseStarted(self._id, self._model))
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self._finish_reason = f"prompt_blocked:{short(chunk.prompt_feedback.block_reason)}"
        for candidate in chunk.candidates or ():
            self._read_candidate(candidate, out)
        if chunk.usage_metadata is not None:
            self._usage = merged(self._usage, chunk.usage_metadata)
            self._report(out)
            # The last chunk has both; whoever leaves after it has left after the answer.
            if self._finish_reason and all(state.finish_reason for state in self._candidates.values()):
                self._end(out)

    def finish(self, out: list[StreamEvent]) -> None:
        if self._finish_reason or self._failed:
            self._end(out)

    def read_document(self, body: bytes) -> list[StreamEvent]:
        out: list[StreamEvent] = []
        start = body.lstrip(_SKIPPED_AT_START)
        # A stream that nobody expected to be one.
        for chunk in decode(requests.ITEMS, start) if start.startswith(b"[") else (msgspec.Raw(start),):
            self.read_chunk(bytes(chunk), out)
        if not self._candidates and not self._finish_reason and not self._failed and self._usage is None:
            raise MalformedBody("the document is no answer: it has no candidates")
        self._end(out)
        return out

    def _read_candidate(self, candidate: _Candidate, out: list[StreamEvent]) -> None:
        number = candidate.index or 0
        state = self._candidates.get(number)
        if state is None:
            if len(self._candidates) >= MAX_OPEN_PARTS:
                raise MalformedBody(f"more than {MAX_OPEN_PARTS} candidates")
            state = self._candidates[number] = _CandidateState()
        if candidate.content is not None:
            for raw in candidate.content.parts or ():
                self._read_part(state, raw, out)
        if candidate.grounding_metadata is not None:
            grounding = candidate.grounding_metadata
            self._look_up("google_search", "queries", grounding.web_search_queries, out)
            self._look_up("image_search", "queries", grounding.image_search_queries, out)
            self._look_up("retrieval", "queries", grounding.retrieval_queries, out)
        if candidate.url_context_metadata is not None:
            urls = [entry.retrieved_url for entry in candidate.url_context_metadata.url_metadata or () if entry.retrieved_url]
            self._look_up("url_context", "urls", urls, out)
        if candidate.finish_reason:
            state.finish_reason = candidate.finish_reason
            if number == 0 or not self._finish_reason:
                self._finish_reason = candidate.finish_reason
            self._end_reasoning(state, out)
            # Whatever the reason is: more pieces were announced.
            self._end_call(state, out, is_cut=True)

    def _read_part(self, state: _CandidateState, raw: msgspec.Raw, out: list[StreamEvent]) -> None:
        part = decode(_PART, raw)
        if part.thought and part.text is not None:
            if part.text:
                if state.reasoning is None:
                    state.reasoning = self._next_part()
                out.append(ReasoningDelta(state.reasoning, ThoughtSource.THINKING, part.text))
            return
        if part.text:
            self._end_reasoning(state, out)
            out.append(TextDelta(len(part.text)))
        elif part.function_call is not None:
            self._end_reasoning(state, out)
            self._read_function_call(state, part.function_call, out)
        elif part.tool_call is not None:
            call = part.tool_call
            self._end_reasoning(state, out)
            self._has_tool_calls = True
            self._call_hosted((call.tool_type or "").lower(), json_text(call.args), out, call_id=call.id or "")
        elif not is_null(part.executable_code):
            self._end_reasoning(state, out)
            self._call_hosted("code_execution", json_text(part.executable_code), out)
        else:
            fields = decode(requests.FIELDS, raw)
            if fields and _OTHER_PARTS.isdisjoint(fields):
                out.append(unknown("part", next(iter(fields))))

    def _read_function_call(self, state: _CandidateState, call: _FunctionCall, out: list[StreamEvent]) -> None:
        if call.name and state.call is not None:
            # A new name while another call is open: the open one got all it will get.
            self._end_call(state, out)
        if state.call is None:
            state.call = self._next_part()
            out.append(ToolCallStarted(state.call, call.name or "", call.id or ""))
        for piece in call.partial_args or ():
            state.arguments.add(piece)
            if state.arguments.characters > self._max_argument_characters:
                raise EventTooLarge(held_bytes=state.arguments.characters, max_bytes=self._max_argument_characters)
        if not call.will_continue:
            self._end_call(state, out, json_text(call.args) if starts_with(call.args, b"{") else "")

    def _end_call(self, state: _CandidateState, out: list[StreamEvent], arguments: str = "", *, is_cut: bool = False) -> None:
        if state.call is None:
            return
        out.append(ToolCallDelta(state.call, arguments or state.arguments.json()))
        out.append(ToolCallEnded(state.call, truncated=is_cut))
        state.call = None
        state.arguments = Arguments()

    def _call_hosted(self, name: str, arguments: str, out: list[StreamEvent], *, call_id: str = "") -> None:
        index = self._next_part()
        out += (
            ToolCallStarted(index, name, call_id, kind=ToolKind.HOSTED),
            ToolCallDelta(index, arguments),
            ToolCallEnded(index),
        )

    def _look_up(self, tool: str, argument: str, values: list[str] | None, out: list[StreamEvent]) -> None:
        """Tell what the provider looked up that was not told before, as one call."""
        new = [value for value in dict.fromkeys(values or ()) if (tool, value) not in self._looked_up]
        if not new:
            return
        if len(self._looked_up) + len(new) > MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} searches")
        self._looked_up.update((tool, value) for value in new)
        if tool == "google_search":
            self._searches += len(new)
        if not self._has_tool_calls:
            self._call_hosted(tool, msgspec.json.encode({argument: new}).decode(), out)

    def _end_reasoning(self, state: _CandidateState, out: list[StreamEvent]) -> None:
        if state.reasoning is not None:
            out.append(ReasoningEnded(state.reasoning))
            state.reasoning = None

    def _next_part(self) -> int:
        if self._parts >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} tool calls and reasonings")
        self._parts += 1
        return self._parts - 1

    def _report(self, out: list[StreamEvent], *, is_final: bool = False) -> None:
        if self._usage is None or (found := token_usage(self._usage)) is None:
            return
        if self._searches:
            # What the search is billed by, where it is not free.
            found = _with_searches(found, self._searches)
        self._usage_is_final = is_final or bool(self._finish_reason)
        facts = (("traffic_type", self._usage.traffic_type), ("service_tier", self._usage.service_tier))
        metadata = {name: short(value) for name, value in facts if value}
        out.append(UsageReported(found, final=self._usage_is_final, metadata=metadata))

    def _end(self, out: list[StreamEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._usage_is_final and not self._failed:
            self._report(out, is_final=True)
        out.append(ResponseEnded(self._finish_reason or ("error" if self._failed else ""), complete=not self._failed))


def _with_searches(usage: TokenUsage, searches: int) -> TokenUsage:
    return msgspec.structs.replace(usage, extra={**usage.extra, "web_search_requests": searches})


class _StreamBody:
    """A `ResponseParser` of a stream in either form, told by its first byte."""

    __slots__ = ("_body", "_max_event_bytes", "_reader", "samples")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._reader = _Reader(max_event_bytes)
        self._body: EventStreamBody | FramedBody[bytes] | None = None
        self.samples = Samples()
        """As `ResponseParser.samples`."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of what is not finished, with the characters of unfinished arguments."""
        return (self._body.held_bytes if self._body is not None else 0) + self._reader.held_characters

    def feed(self, data: bytes) -> list[StreamEvent]:
        """As `ResponseParser.feed`."""
        if self._body is None:
            # Neither form has anything to say before its first visible byte.
            data = data.lstrip(_SKIPPED_AT_START)
            if not data:
                return []
            if data[0] in b"[{":
                decoder = JsonArrayDecoder(self._max_event_bytes)
                self._body = FramedBody(decoder, self._reader.read_chunk, self._reader.finish, self.samples)
            else:
                self._body = EventStreamBody(self._max_event_bytes, self._reader, self.samples)
        return self._body.feed(data)

    def close(self) -> list[StreamEvent]:
        """As `ResponseParser.close`."""
        return self._body.close() if self._body is not None else []


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="google")


def _document_parser(max_body_bytes: int) -> ResponseParser:
    return DocumentBody(max_body_bytes, _Reader(max_body_bytes).read_document)


API: Final = Api(
    name="google.generate_content",
    operation="generate_content",
    read_request=read_request,
    stream_parser=_StreamBody,
    document_parser=_document_parser,
    read_error=_read_error,
    streams_json=True,
)
