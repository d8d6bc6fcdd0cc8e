"""OpenAI's Chat Completions API (`POST /v1/chat/completions`), also as Copilot and the many compatible servers speak it.

Facts:
- A stream is chunks of unnamed events, then `data: [DONE]`; some servers leave the latter out. Comments keep it alive.
- Pieces of one tool call share its `index` within the choice. Some servers start at 1, leave the index out, or give every call
  index 0 and tell them apart by id.
- Usage stands in the last chunk, with empty choices; or beside `finish_reason`; or grows on every chunk; or nowhere at all,
  when the client did not ask for it. Each is a total of the whole response, so the last one counts. Moonshot puts it into the
  choice, Groq into `x_groq`.
- Reasoning text is no part of OpenAI's API. Compatible servers send `reasoning_content`, `reasoning` or `reasoning_text`,
  Mistral parts of type `thinking`.

Source:
    https://developers.openai.com/api/reference/resources/chat
    https://api-docs.deepseek.com/guides/reasoning_model
    https://docs.mistral.ai/capabilities/reasoning
    https://console.groq.com/docs/api-reference
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
    ToolCallEnded,
    ToolCallStarted,
    ToolKind,
    UsageReported,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, decode, is_null, json_text, short, starts_with, text_of, unknown
from aiproxyd.providers.openai_usage import ChatUsage, chat_token_usage
from aiproxyd.wire.event_stream import ServerSentEvent

_DONE: Final = b"[DONE]"

_LIMITS: Final = frozenset({"length", "max_tokens", "model_length", "content_filter"})
"""Finish reasons that may come in the middle of a tool's arguments."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = requests.NOTHING
    """A JSON string by the documentation; some servers send the object itself."""


class _Custom(msgspec.Struct):
    name: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    thinking: msgspec.Raw = requests.NOTHING


class _Audio(msgspec.Struct):
    transcript: str | None = None


class _Delta(msgspec.Struct):
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    function_call: _Function | None = None
    reasoning_content: str | None = None
    reasoning: msgspec.Raw = requests.NOTHING
    reasoning_text: str | None = None
    audio: _Audio | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    usage: ChatUsage | None = None


class _Groq(msgspec.Struct):
    usage: ChatUsage | None = None


class _Completion(msgspec.Struct):
    """A chunk of a stream, or a whole completion."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: ChatUsage | None = None
    service_tier: str | None = None
    x_groq: _Groq | None = None
    error: msgspec.Raw = requests.NOTHING
    object: msgspec.Raw = requests.NOTHING


_COMPLETION: Final = msgspec.json.Decoder(_Completion)
_PARTS: Final = msgspec.json.Decoder(list[_Part])


class _ChoiceState:
    """What is open in one choice."""

    __slots__ = ("by_index", "function_call", "last", "reasoning", "tools")

    def __init__(self) -> None:
        self.by_index: dict[int, int] = {}
        """The tool call that pieces with this wire index belong to."""
        self.tools: dict[int, str] = {}
        """Open tool calls: our index to the provider's id."""
        self.last: int | None = None
        self.function_call: int | None = None
        self.reasoning: int | None = None


class CompletionReader:
    """One completion, streamed or not."""

    __slots__ = (
        "_choices",
        "_ended",
        "_failed",
        "_finish_reason",
        "_id",
        "_is_final",
        "_metadata",
        "_model",
        "_parts",
        "_usage",
    )

    def __init__(self) -> None:
        self._id = ""
        self._model = ""
        self._choices: dict[int, _ChoiceState] = {}
        self._parts = 0
        """Tool calls and reasonings so far: the next index."""
        self._usage: TokenUsage | None = None
        self._is_final = False
        self._metadata: dict[str, str] = {}
        self._finish_reason = ""
        self._failed = False
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        data = event.data
        if data.startswith(_DONE):
            self._end(out)
        elif data:
            # Named events are no part of the API: their data tells what they are, and their name is worth a count.
            if event.event not in {"message", "error"}:
                out.append(unknown("event", event.event))
            chunk = decode(_COMPLETION, data)
            if _is_flat_error(chunk):
                self._fail(data, out)
            else:
                self._read(chunk, out)

    def finish(self, out: list[StreamEvent]) -> None:
        # Without `[DONE]`, a finish reason or an error is the provider's last word.
        if self._finish_reason or self._failed:
            self._end(out)

    def read_document(self, body: bytes) -> list[StreamEvent]:
        completion = decode(_COMPLETION, body)
        if _is_flat_error(completion):
            return [errors.decoded_error(body), ResponseEnded("error", complete=False)]
        if completion.choices is None and is_null(completion.error):
            raise MalformedBody("the document is no completion: it has no choices")
        for choice in completion.choices or ():
            if choice.message is not None:
                # Perplexity has a chunk's empty delta beside the message, and in a stream the message so far beside the delta.
                choice.delta = None
        out: list[StreamEvent] = []
        self._read(completion, out)
        self._end(out)
        return out

    def _read(self, chunk: _Completion, out: list[StreamEvent]) -> None:
        if not is_null(chunk.error):
            self._fail(chunk.error, out)
        if (chunk.id and not self._id) or (chunk.model and not self._model):
            # Azure's first chunk, about the prompt alone, has neither.
            self._id = self._id or chunk.id or ""
            self._model = self._model or chunk.model or ""
            out.append(ResponseStarted(self._id, self._model))
        if chunk.service_tier:
            self._metadata = {"service_tier": short(chunk.service_tier)}
        usage = chunk.usage
        for choice in chunk.choices or ():
            self._read_choice(choice, out)
            usage = usage or choice.usage
        if usage is None and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if usage is not None:
            self._report(usage, out)

    def _fail(self, error: bytes | msgspec.Raw, out: list[StreamEvent]) -> None:
        self._failed = True
        out.append(errors.decoded_error(error))

    def _read_choice(self, choice: _Choice, out: list[StreamEvent]) -> None:
        number = choice.index or 0
        state = self._choices.get(number)
        if state is None:
            if len(self._choices) >= MAX_OPEN_PARTS:
                raise MalformedBody(f"more than {MAX_OPEN_PARTS} choices")
            state = self._choices[number] = _ChoiceState()
        delta = choice.delta or choice.message
        if delta is not None:
            self._read_delta(state, delta, out)
        if choice.finish_reason:
            if number == 0 or not self._finish_reason:
                self._finish_reason = choice.finish_reason
            self._end_reasoning(state, out)
            # The last one is what a limit may have cut.
            is_cut = choice.finish_reason in _LIMITS
            out.extend(ToolCallEnded(index, truncated=is_cut and index == state.last) for index in state.tools)
            state.tools.clear()

    def _read_delta(self, state: _ChoiceState, delta: _Delta, out: list[StreamEvent]) -> None:
        # Gateways that translate between the three names send the same text under two of them.
        reasoning = delta.reasoning_content or text_of(delta.reasoning) or delta.reasoning_text
        if reasoning:
            self._reason(state, reasoning, out)
        content = delta.content
        if isinstance(content, list):
            self._read_parts(state, content, out)
        elif content:
            self._end_reasoning(state, out)
            out.append(TextDelta(len(content)))
        if delta.refusal:
            out.append(TextDelta(len(delta.refusal)))
        if delta.audio is not None and delta.audio.transcript:
            out.append(TextDelta(len(delta.audio.transcript)))
        if delta.tool_calls:
            self._end_reasoning(state, out)
            for call in delta.tool_calls:
                self._read_tool_call(state, call, out)
        if delta.function_call is not None:
            self._read_function_call(state, delta.function_call, out)

    def _read_parts(self, state: _ChoiceState, parts: list[_Part], out: list[StreamEvent]) -> None:
        for part in parts:
            match part.type:
                case "text" | "output_text" | "refusal":
                    if text := part.text or part.refusal:
                        self._end_reasoning(state, out)
                        out.append(TextDelta(len(text)))
                case "thinking":
                    text = text_of(part.thinking) or "".join(
                        piece.text or ""
                        for piece in (decode(_PARTS, part.thinking) if starts_with(part.thinking, b"[") else ())
                    )
                    if text:
                        self._reason(state, text, out)
                case "reference":
                    pass
                case kind:
                    out.append(unknown("part", kind))

    def _reason(self, state: _ChoiceState, text: str, out: list[StreamEvent]) -> None:
        if state.reasoning is None:
            state.reasoning = self._next_part()
        out.append(ReasoningDelta(state.reasoning, ThoughtSource.REASONING_CONTENT, text))

    def _end_reasoning(self, state: _ChoiceState, out: list[StreamEvent]) -> None:
        if state.reasoning is not None:
            out.append(ReasoningEnded(state.reasoning))
            state.reasoning = None

    def _read_tool_call(self, state: _ChoiceState, call: _ToolCall, out: list[StreamEvent]) -> None:
        function, custom = call.function, call.custom
        name = (function.name if function is not None else None) or (custom.name if custom is not None else None) or ""
        call_id = call.id or ""
        index = state.last if call.index is None else state.by_index.get(call.index)
        known_id = None if index is None else state.tools.get(index)
        # A name under a new id, or under no index at all, begins a new call, whatever the index says.
        is_new = bool(name) and (call_id != known_id if call_id else call.index is None)
        if index is None or known_id is None or is_new:
            index = self._next_part()
            if call.index is not None:
                state.by_index[call.index] = index
            state.tools[index] = call_id
            kind = ToolKind.CUSTOM if custom is not None or call.type == "custom" else ToolKind.FUNCTION
            if call.type not in {None, "", "function", "custom"}:
                out.append(unknown("tool", call.type or ""))
            out.append(ToolCallStarted(index, name, call_id, "", kind))
        state.last = index
        fragment = _arguments(function) if function is not None else ""
        if custom is not None and custom.input:
            fragment += custom.input
        if fragment:
            out.append(ToolCallDelta(index, fragment))

    def _read_function_call(self, state: _ChoiceState, call: _Function, out: list[StreamEvent]) -> None:
        self._end_reasoning(state, out)
        if state.function_call is None:
            state.function_call = state.last = self._next_part()
            state.tools[state.function_call] = ""
            out.append(ToolCallStarted(state.function_call, call.name or ""))
        if fragment := _arguments(call):
            out.append(ToolCallDelta(state.function_call, fragment))

    def _next_part(self) -> int:
        if self._parts >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} tool calls and reasonings")
        self._parts += 1
        return self._parts - 1

    def _report(self, usage: ChatUsage, out: list[StreamEvent]) -> None:
        found = chat_token_usage(usage)
        if found is None:
            return
        self._usage = found
        self._is_final = bool(self._finish_reason)
        out.append(UsageReported(found, final=self._is_final, metadata=self._metadata))

    def _end(self, out: list[StreamEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        if self._usage is not None and not self._is_final and not self._failed:
            out.append(UsageReported(self._usage, final=True, metadata=self._metadata))
        out.append(ResponseEnded(self._finish_reason or ("error" if self._failed else ""), complete=not self._failed))


def _is_flat_error(chunk: _Completion) -> bool:
    """Return whether the chunk itself is the error, as Mistral and vLLM have it."""
    return chunk.choices is None and is_null(chunk.error) and text_of(chunk.object) == "error"


def _arguments(function: _Function) -> str:
    raw = function.arguments
    if is_null(raw):
        return ""
    text = text_of(raw)
    return json_text(raw) if text is None else text


class _Request(requests.Request):
    messages: list[msgspec.Raw] | None = None


class _LastMessage(msgspec.Struct):
    role: msgspec.Raw = requests.NOTHING
    content: msgspec.Raw = requests.NOTHING
    tool_call_id: msgspec.Raw = requests.NOTHING


class _RequestPart(msgspec.Struct):
    type: msgspec.Raw = requests.NOTHING
    text: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)
_LAST_MESSAGE: Final = msgspec.json.Decoder(_LastMessage)
_REQUEST_PART: Final = msgspec.json.Decoder(_RequestPart)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    return requests.read(body, _REQUEST, _last_message, requests.session_candidates)


def _last_message(request: _Request) -> tuple[str | None, str]:
    """Return the prompt and the id of the answered tool call that the last message holds."""
    if not request.messages:
        raise MalformedBody("no messages")
    last = decode(_LAST_MESSAGE, request.messages[-1])
    role = text_of(last.role)
    if role == "tool":
        return None, text_of(last.tool_call_id) or ""
    if role != "user" or is_null(last.content):
        return None, ""
    if starts_with(last.content, b'"'):
        return text_of(last.content) or None, ""
    parts = decode(requests.ITEMS, last.content)
    for raw in reversed(parts):
        part = decode(_REQUEST_PART, raw)
        if text_of(part.type) == "text":
            return text_of(part.text) or None, ""
    return None, ""


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="openai")


API: Final = Api(
    name="openai.chat_completions",
    operation="chat",
    read_request=_read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, CompletionReader()),
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, CompletionReader().read_document),
    read_error=_read_error,
)
