"""Documented fields that a completed answer lacks are told, over every transcript and in each case."""

import msgspec
import pytest

from aiproxyd.assemble import Assembly
from aiproxyd.drift import DOCUMENTED, PREFIX, missing_fields
from aiproxyd.model.events import (
    ProviderErrorReported,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ToolCallStarted,
    ToolKind,
    UsageReported,
)
from aiproxyd.model.outcome import ErrorType
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.apis import APIS
from aiproxyd.providers.openai_realtime import API as REALTIME
from tests.support.transcripts import Transcript, result, transcripts

LACKING = {
    "anthropic/messages/message_stop_without_stop_reason": ["stop_reason"],
    "bedrock/converse/cut_before_metadata": ["usage"],
    "bedrock/converse/document_guardrail": ["usage"],
    "cohere/chat/tool_results_in_request": ["usage"],
    "cohere/chat/unknown_things": ["tool_calls.function.name", "tool_calls.id"],
    "cohere/embed/without_figures": ["meta.billed_units"],
    "cohere/embed/without_meta": ["meta.billed_units"],
    "google/generate_content/prompt_blocked_without_usage": ["modelVersion", "usageMetadata"],
    "google/generate_content/usage_without_counts": ["usageMetadata"],
    "google/generate_content/without_usage": ["usageMetadata"],
    "google/interactions/streamed_twice_completed": ["usage"],
    "google/interactions/streamed_without_event_types": ["model", "status", "usage"],
    "openai/chat_completions/tool_index_missing": ["tool_calls.id"],
    "openai/chat_completions/usage_before_done_but_without_finish_reason": ["choices.finish_reason"],
    "openai/completions/document_two_choices": ["usage"],
    "openai/completions/no_prompts": ["usage"],
    "openai/completions/prompt_of_tokens": ["usage"],
    "openai/completions/several_prompts": ["usage"],
    "openai/completions/streamed_cumulative_usage": ["choices.finish_reason"],
    "openai/embeddings/usage_null": ["usage"],
    "openai/embeddings/usage_of_zeros_is_none": ["usage"],
    "openai/embeddings/without_usage": ["usage"],
}
"""Transcripts that lack a field, on purpose or because they were made to show another thing; all others lack none."""


def _missing(transcript: Transcript) -> list[str]:
    assembly = Assembly()
    assembly.feed(result(transcript)[1])
    assembly.finish()
    asks = transcript.api.read_request(transcript.request, transcript.head()).asks_for_usage
    found = missing_fields(transcript.api.name, assembly, is_streamed=transcript.is_stream, asks_for_usage=asks)
    return [kind.removeprefix(PREFIX) for kind in found]


def test_only_these_transcripts_lack_a_documented_field() -> None:
    found = {transcript.name: _missing(transcript) for transcript in transcripts() if transcript.status < 400}
    assert {name: missing for name, missing in found.items() if missing} == LACKING


def test_every_api_in_the_table_exists_and_its_labels_are_short() -> None:
    assert set(DOCUMENTED) <= {*APIS, REALTIME.name}
    for fields in DOCUMENTED.values():
        names = [
            getattr(fields, field) for field in ("id", "model", "finish", "usage", "input", "output", "tool_name", "tool_id")
        ]
        assert all(len(PREFIX + name) <= 64 for name in names)
        assert len(set(filter(None, names))) == len(list(filter(None, names))), "a name is one field's"


WHOLE: list[StreamEvent] = [
    ResponseStarted("id-1", "model-1"),
    TextDelta(5),
    ToolCallStarted(0, "ls", "call-1"),
    UsageReported(TokenUsage(input_tokens=3, output_tokens=2), final=True),
    ResponseEnded("stop"),
]


def _of(api: str, *events: StreamEvent, is_streamed: bool = False, asks: bool = False) -> list[str]:
    assembly = Assembly()
    assembly.feed(events)
    return missing_fields(api, assembly, is_streamed=is_streamed, asks_for_usage=asks)


@pytest.mark.parametrize("api", DOCUMENTED)
def test_a_whole_answer_lacks_nothing(api: str) -> None:
    assert _of(api, *WHOLE) == []


@pytest.mark.parametrize("api", DOCUMENTED)
def test_each_field_of_the_table_is_missed(api: str) -> None:
    fields = DOCUMENTED[api]
    nameless = ToolCallStarted(0, "", "")
    assert set(_of(api, TextDelta(5), nameless, ResponseEnded(""))) == {
        f"{PREFIX}{name}"
        for name in (fields.id, fields.model, fields.finish, fields.usage, fields.tool_name, fields.tool_id)
        if name
    }
    no_input = UsageReported(TokenUsage(output_tokens=2))
    assert _of(api, *WHOLE[:3], no_input, WHOLE[-1]) == ([f"{PREFIX}{fields.input}"] if fields.input else [])
    no_output = UsageReported(TokenUsage(input_tokens=2))
    assert _of(api, *WHOLE[:3], no_output, WHOLE[-1]) == ([f"{PREFIX}{fields.output}"] if fields.output else [])


def test_an_answer_that_is_not_completed_lacks_nothing() -> None:
    api = "openai.responses"
    assert _of(api, TextDelta(1)) == []
    assert _of(api, ResponseEnded("failed", complete=False)) == []
    assert _of(api, ProviderErrorReported(ErrorType.UNKNOWN, "no"), ResponseEnded("completed")) == []
    assert _of(api, ResponseStarted("r", "m"), ResponseEnded("queued")) == []
    assert _of(api, ResponseStarted("r", "m"), ResponseEnded("completed")) == ["missing:usage"]


def test_a_chat_stream_has_figures_only_where_they_were_asked_for() -> None:
    api = "openai.chat_completions"
    events = (ResponseStarted("r", "m"), TextDelta(1), ResponseEnded("stop"))
    assert _of(api, *events, is_streamed=True) == []
    assert _of(api, *events, is_streamed=True, asks=True) == ["missing:usage"]
    assert _of(api, *events) == ["missing:usage"]


def test_calls_that_nobody_answers_need_no_id() -> None:
    hosted = ToolCallStarted(0, "web_search", kind=ToolKind.HOSTED)
    assert _of("openai.responses", WHOLE[0], hosted, *WHOLE[3:]) == []
    legacy = (WHOLE[0], ToolCallStarted(0, "ls"), WHOLE[3], ResponseEnded("function_call"))
    assert _of("openai.chat_completions", *legacy) == []


def test_an_api_that_is_not_in_the_table_lacks_nothing() -> None:
    assert _of("openai.speech", ResponseEnded()) == []


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DOCUMENTED["x"] = msgspec.structs.replace(DOCUMENTED["openai.responses"])  # type: ignore[index]
