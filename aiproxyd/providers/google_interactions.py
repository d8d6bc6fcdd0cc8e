"""Google's Interactions API (`POST /v1beta/interactions`).

Facts:
- An answer is an interaction with `steps`: model output, thoughts, calls of functions and of the provider's own tools, and their results.
- A stream is `interaction.created`, for each step `step.start`, `step.delta`…, `step.stop`, then `interaction.completed`, which has the
  usage; `interaction.status_update` and `error` may come between. The data repeats the name as `event_type`. `[DONE]` may follow.
- A function's arguments come as pieces of text, a tool of the provider's as a whole object, at the start or later.
- `total_input_tokens` includes what was cached; thoughts and what tools put in are counted beside, as in generateContent.

Source:
    https://ai.google.dev/gemini-api/docs/interactions
    https://ai.google.dev/api/interactions-api
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
    ToolKind,
    UsageReported,
)
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import token_count
from aiproxyd.providers import errors, requests
from aiproxyd.providers.api import Api, RequestFacts
from aiproxyd.providers.bodies import DocumentBody, EventStreamBody
from aiproxyd.providers.call_ends import CallEnds
from aiproxyd.providers.decoding import MAX_OPEN_PARTS, Count, decode, is_null, json_text, short, starts_with, text_of, unknown
from aiproxyd.providers.google_usage import ModalityCount, UsageMetadata, token_usage
from aiproxyd.wire.event_stream import ServerSentEvent

_QUIET: Final = frozenset(
    {"user_input", "thought_signature", "text_annotation_delta", "image", "audio", "video", "document", "file"}
)
"""Steps and deltas that are known and hold nothing to record, besides results of tools."""

_FAILED: Final = frozenset({"failed", "cancelled"})


class _Modality(msgspec.Struct):
    modality: str | None = None
    tokens: Count = None


class _ToolCount(msgspec.Struct):
    type: str | None = None
    count: Count = None


class _Usage(msgspec.Struct):
    total_input_tokens: Count = None
    total_output_tokens: Count = None
    total_thought_tokens: Count = None
    total_tool_use_tokens: Count = None
    total_cached_tokens: Count = None
    total_tokens: Count = None
    input_tokens_by_modality: list[_Modality] | None = None
    output_tokens_by_modality: list[_Modality] | None = None
    grounding_tool_count: list[_ToolCount] | None = None


class _Text(msgspec.Struct):
    text: str | None = None


class _Step(msgspec.Struct):
    """A step, a piece of one, or an output of the API's first version, which is a content without a step."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    server_name: str | None = None
    arguments: msgspec.Raw = requests.NOTHING
    content: list[_Text] | _Text | None = None
    summary: list[_Text] | None = None
    text: str | None = None


class _Interaction(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    agent: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    service_tier: str | None = None
    steps: list[msgspec.Raw] | None = None
    outputs: list[msgspec.Raw] | None = None
    error: msgspec.Raw = requests.NOTHING


class _Event(msgspec.Struct):
    event_type: str = ""
    index: int = 0
    step: msgspec.Raw = requests.NOTHING
    delta: msgspec.Raw = requests.NOTHING
    interaction: _Interaction | None = None
    usage: _Usage | None = None
    status: str | None = None
    error: msgspec.Raw = requests.NOTHING


class _Kind(msgspec.Struct):
    type: str = ""


_EVENT: Final = msgspec.json.Decoder(_Event)
_INTERACTION: Final = msgspec.json.Decoder(_Interaction)
_STEP: Final = msgspec.json.Decoder(_Step)
_KIND: Final = msgspec.json.Decoder(_Kind)


class _Reader:
    """One interaction, streamed or not."""

    __slots__ = ("_call_ends", "_ended", "_failed", "_open", "_status")

    def __init__(self) -> None:
        self._open: dict[int, str | None] = {}
        """Thoughts (None) and calls that have begun, by index: a call's arguments that were not told yet, empty when all were."""
        self._call_ends = CallEnds()
        self._status = ""
        self._failed = False
        self._ended = False

    def read(self, event: ServerSentEvent, out: list[StreamEvent]) -> None:
        if not event.data or event.data == b"[DONE]":
            return
        data = decode(_EVENT, event.data)
        match data.event_type or event.event:
            case "step.delta":
                self._read_step(data.index, data.delta, out)
            case "step.start":
                self._read_step(data.index, data.step, out)
            case "step.stop":
                self._stop_step(data.index, out)
                self._report(data.usage, out)
            case "interaction.created":
                self._start(data.interaction or _Interaction(), out)
            case "interaction.status_update":
                self._status = data.status or self._status
                self._report(data.usage, out)
            case "interaction.completed":
                interaction = data.interaction or _Interaction()
                self._status = interaction.status or self._status
                self._report(interaction.usage, out, interaction.service_tier, is_final=True)
                self._end(out)
            case "error":
                self._failed = True
                out.append(errors.decoded_error(event.data))
            case kind:
                out.append(unknown("event", kind))

    def finish(self, out: list[StreamEvent]) -> None:
        if self._failed or self._status in _FAILED:
            self._end(out)

    def read_document(self, body: bytes) -> list[StreamEvent]:
        interaction = decode(_INTERACTION, body)
        if not is_null(interaction.error):
            return [errors.decoded_error(interaction.error), ResponseEnded("error", complete=False)]
        if interaction.status is None:
            raise MalformedBody("the document is no interaction: it has no status")
        out: list[StreamEvent] = []
        self._start(interaction, out)
        for index, step in enumerate(interaction.steps or interaction.outputs or ()):
            self._read_step(index, step, out)
            self._stop_step(index, out)
        self._status = interaction.status
        self._report(interaction.usage, out, interaction.service_tier, is_final=True)
        self._end(out)
        return out

    def _start(self, interaction: _Interaction, out: list[StreamEvent]) -> None:
        out.append(ResponseStarted(interaction.id or "", interaction.model or interaction.agent or ""))

    def _read_step(self, index: int, raw: msgspec.Raw, out: list[StreamEvent]) -> None:
        """Read a whole step, its beginning, or a piece of it: each has a type and what belongs to that."""
        kind = decode(_KIND, raw).type
        if kind in _QUIET or kind.endswith("_result"):
            return
        if kind not in {"text", "model_output", "thought", "thought_summary", "arguments_delta"} and not kind.endswith("_call"):
            out.append(unknown("step", kind))
            return
        if index not in self._open:
            self._call_ends.release(out)
        step = decode(_STEP, raw)
        match kind:
            case "text" | "model_output":
                texts = (step.text, *(each.text for each in _several(step.content)))
                out.extend(TextDelta(len(text)) for text in texts if text)
            case "thought" | "thought_summary":
                for thought in (*_several(step.content), *(step.summary or ())):
                    if thought.text:
                        self._begin(index, None)
                        out.append(ReasoningDelta(index, ThoughtSource.THINKING, thought.text))
            case "arguments_delta":
                fragment = text_of(step.arguments)
                if fragment and self._open.get(index) is not None:
                    self._open[index] = ""
                    out.append(ToolCallDelta(index, fragment))
            case _:
                self._read_call(index, kind, step, out)

    def _read_call(self, index: int, kind: str, step: _Step, out: list[StreamEvent]) -> None:
        if index not in self._open:
            name = step.name or kind.removesuffix("_call")
            tool_kind = ToolKind.FUNCTION if kind == "function_call" else ToolKind.HOSTED
            self._begin(index, "{}")
            out.append(ToolCallStarted(index, name, step.id or "", "", tool_kind, step.server_name or ""))
        if starts_with(step.arguments, b"{") and len(step.arguments) > len(b"{}"):
            self._open[index] = json_text(step.arguments)

    def _begin(self, index: int, arguments: str | None) -> None:
        if index not in self._open and len(self._open) >= MAX_OPEN_PARTS:
            raise MalformedBody(f"more than {MAX_OPEN_PARTS} steps are open")
        self._open.setdefault(index, arguments)

    def _stop_step(self, index: int, out: list[StreamEvent]) -> None:
        if index not in self._open:
            return
        arguments = self._open.pop(index)
        if arguments is None:
            out.append(ReasoningEnded(index))
            return
        if arguments:
            out.append(ToolCallDelta(index, arguments))
        self._call_ends.hold(index, out)

    def _report(
        self, usage: _Usage | None, out: list[StreamEvent], service_tier: str | None = None, *, is_final: bool = False
    ) -> None:
        if usage is None or (found := token_usage(_metadata_of(usage))) is None:
            return
        searches = sum(token_count(each.count) for each in usage.grounding_tool_count or () if each.type == "google_search")
        if searches:
            found = msgspec.structs.replace(found, extra={**found.extra, "web_search_requests": searches})
        out.append(UsageReported(found, final=is_final, metadata={"service_tier": short(service_tier)} if service_tier else {}))

    def _end(self, out: list[StreamEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        self._call_ends.release(out, is_cut=self._status == "incomplete")
        failed = self._failed or self._status in _FAILED
        out.append(ResponseEnded(self._status or ("error" if failed else ""), complete=not failed))


def _several(content: list[_Text] | _Text | None) -> list[_Text]:
    if content is None:
        return []
    return content if isinstance(content, list) else [content]


def _metadata_of(usage: _Usage) -> UsageMetadata:
    """Return the figures by the names of generateContent, whose rules they follow."""

    def details(parts: list[_Modality] | None) -> list[ModalityCount]:
        return [ModalityCount((part.modality or "").upper(), part.tokens) for part in parts or ()]

    return UsageMetadata(
        prompt_token_count=usage.total_input_tokens,
        candidates_token_count=usage.total_output_tokens,
        thoughts_token_count=usage.total_thought_tokens,
        tool_use_prompt_token_count=usage.total_tool_use_tokens,
        cached_content_token_count=usage.total_cached_tokens,
        total_token_count=usage.total_tokens,
        prompt_tokens_details=details(usage.input_tokens_by_modality),
        candidates_tokens_details=details(usage.output_tokens_by_modality),
    )


class _Request(requests.Request):
    input: msgspec.Raw = requests.NOTHING
    agent: msgspec.Raw = requests.NOTHING
    previous_interaction_id: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)


def _read_request(body: bytes, head: RequestHead) -> RequestFacts:  # noqa: ARG001 (all of this API is in the body)
    facts = requests.read(body, _REQUEST, _last_input, _session)
    # An agent is asked instead of a model, and stands for it.
    return facts if facts.request_model else msgspec.structs.replace(facts, request_model=facts.metadata.get("agent", ""))


def _last_input(request: _Request) -> tuple[str | None, str]:
    """Return the prompt and the id of the answered function call that the last input holds."""
    if starts_with(request.input, b'"'):
        return text_of(request.input), ""
    entries = _entries(request.input)
    if not entries:
        return None, ""
    last = decode(requests.FIELDS, entries[-1])
    if text_of(last.get("type", requests.NOTHING)) == "function_result":
        return None, text_of(last.get("call_id", requests.NOTHING)) or ""
    content = last.get("content", requests.NOTHING)
    if is_null(content):
        # Contents stand in the input itself, or the entry is a step of the model's.
        entries.reverse()
        return _last_text(entries), ""
    is_users = text_of(last.get("role", requests.NOTHING)) in {None, "user"}
    if not is_users or text_of(last.get("type", requests.NOTHING)) in {"model_output", "thought"}:
        return None, ""
    if starts_with(content, b'"'):
        return text_of(content), ""
    return _last_text(_entries(content)[::-1]), ""


def _entries(raw: msgspec.Raw) -> list[msgspec.Raw]:
    if is_null(raw):
        return []
    return [raw] if starts_with(raw, b"{") else decode(requests.ITEMS, raw)


def _last_text(entries: list[msgspec.Raw]) -> str | None:
    """Return the first text among contents that come last first."""
    for raw in entries:
        content = decode(requests.FIELDS, raw)
        if text_of(content.get("type", requests.NOTHING)) == "text":
            return text_of(content.get("text", requests.NOTHING))
    return None


def _session(request: requests.Request) -> tuple[str, dict[str, str]]:
    if not isinstance(request, _Request):
        return "", {}
    hints = {
        "previous_interaction_id": requests.hint(request.previous_interaction_id),
        "agent": requests.hint(request.agent),
    }
    return "", {key: value for key, value in hints.items() if value}


def _read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    return errors.read_error(status_code, body, provider_type="google")


API: Final = Api(
    name="google.interactions",
    operation="generate_content",
    read_request=_read_request,
    stream_parser=lambda max_event_bytes: EventStreamBody(max_event_bytes, _Reader()),
    document_parser=lambda max_body_bytes: DocumentBody(max_body_bytes, _Reader().read_document),
    read_error=_read_error,
)
