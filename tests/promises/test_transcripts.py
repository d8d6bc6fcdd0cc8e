"""The transcripts: what each must show has a case in every API where it can come, and each case names the page it is made from."""

import re

import pytest

from tests.support.transcripts import ROOT, Transcript, transcripts

MIN_CASES = 80

SHOWN: dict[str, tuple[str, ...]] = {
    "plain": (
        "anthropic/messages/document_text",
        "openai/chat_completions/document_text",
        "openai/responses/document_text",
        "openai/completions/document",
        "google/generate_content/document_text",
        "google/interactions/document",
        "bedrock/converse/document_text",
        "bedrock/invoke_model/document_anthropic",
        "cohere/chat/document",
    ),
    "streamed": (
        "anthropic/messages/streamed_text",
        "openai/chat_completions/streamed_usage_in_last_chunk",
        "openai/responses/streamed_text",
        "openai/completions/streamed",
        "google/generate_content/streamed_text",
        "google/generate_content/array_text",
        "google/interactions/streamed",
        "bedrock/converse/streamed_text",
        "bedrock/invoke_model/streamed_anthropic",
        "cohere/chat/streamed",
        "copilot/messages/streamed_tool",
        "azure/messages/foundry_streamed",
        "bedrock/messages/mantle_streamed",
        "google/messages/vertex_streamed",
    ),
    "parallel tools": (
        "anthropic/messages/streamed_parallel_tools",
        "openai/chat_completions/streamed_parallel_tool_calls",
        "openai/chat_completions/document_parallel_tool_calls",
        "openai/responses/streamed_parallel_function_calls",
        "google/generate_content/document_thinking_and_parallel_calls",
        "google/interactions/streamed_tools",
        "bedrock/converse/streamed_parallel_tools",
        "cohere/chat/streamed_tools",
    ),
    "thinking": (
        "anthropic/messages/streamed_thinking",
        "deepseek/chat_completions/streamed_reasoning",
        "openai-compat/responses/reasoning_text",
        "google/generate_content/streamed_thinking",
        "bedrock/converse/streamed_reasoning",
        "cohere/chat/streamed_thinking",
        "mistral/chat_completions/streamed_thinking_parts",
    ),
    "redacted thinking": ("anthropic/messages/streamed_redacted_thinking", "anthropic/messages/document_redacted_thinking"),
    "reasoning summaries": ("openai/responses/streamed_reasoning_summaries", "openai/responses/document_reasoning_summaries"),
    "commentary": ("openai/responses/streamed_commentary", "openai/responses/document_commentary"),
    "cached tokens in each form": (
        "anthropic/messages/cache_split",
        "anthropic/messages/cache_split_without_total",
        "openai/chat_completions/cached_tokens",
        "openai/chat_completions/cache_writes",
        "openai/responses/cached_tokens",
        "openai/responses/cache_writes",
        "deepseek/chat_completions/cache_hit_tokens",
        "moonshot/chat_completions/usage_in_choice",
        "google/generate_content/cached_tokens",
        "bedrock/converse/streamed_cache",
    ),
    "refusal": (
        "anthropic/messages/refusal",
        "openai/chat_completions/refusal",
        "openai/responses/refusal",
        "openai/responses/document_refusal",
        "google/generate_content/prompt_blocked",
        "bedrock/converse/document_guardrail",
    ),
    "incomplete": (
        "openai/responses/document_incomplete",
        "google/interactions/document_incomplete",
        "google/generate_content/max_tokens",
        "bedrock/converse/streamed_max_tokens",
    ),
    "truncated tool input": (
        "anthropic/messages/truncated_tool_input",
        "anthropic/messages/truncated_before_tool_input",
        "anthropic/messages/document_truncated_tool_input",
        "openai/chat_completions/truncated_tool_arguments",
        "openai/chat_completions/document_truncated_tool_arguments",
        "openai/responses/incomplete_in_tool_arguments",
        "openai/responses/incomplete_in_custom_tool_input",
        "google/generate_content/partial_arguments_that_never_end",
        "google/interactions/streamed_truncated_call",
        "bedrock/converse/streamed_truncated_tool_input",
        "cohere/chat/streamed_truncated_tool_arguments",
    ),
    "mid-stream error, flat": ("openai/responses/error_event_flat", "mistral/chat_completions/mid_stream_flat_error"),
    "mid-stream error, nested": (
        "anthropic/messages/mid_stream_error",
        "openai/chat_completions/mid_stream_error",
        "openai/responses/error_event_nested",
        "google/generate_content/mid_stream_error",
        "bedrock/converse/mid_stream_throttling",
        "bedrock/invoke_model/exception_after_text",
        "cohere/chat/streamed_error",
    ),
    "usage only at the end": (
        "openai/chat_completions/streamed_usage_in_last_chunk",
        "openai/responses/streamed_text",
        "anthropic/messages/input_only_in_delta",
        "bedrock/converse/streamed_text",
    ),
    "cumulative usage on every chunk": (
        "openai/chat_completions/cumulative_usage_on_every_chunk",
        "openai/completions/streamed_cumulative_usage",
        "google/generate_content/streamed_text",
    ),
    "usage with finish_reason": ("openai/chat_completions/usage_with_finish_reason",),
    "tool index that starts at 1": ("openai/chat_completions/tool_index_starts_at_one",),
    "empty choices": ("openai/chat_completions/streamed_usage_in_last_chunk", "azure/chat_completions/deployment"),
    "CRLF, comments and BOM in streams": (
        "anthropic/messages/crlf_comments_and_byte_order_mark",
        "anthropic/messages/cr_line_endings",
        "openai/chat_completions/crlf_comments_and_byte_order_mark",
        "openai/responses/crlf_comments_and_byte_order_mark",
        "google/generate_content/crlf_comments_and_byte_order_mark",
    ),
    "a data line broken in two": (
        "anthropic/messages/data_line_broken_in_two",
        "openai/chat_completions/data_line_broken_in_two",
        "openai/responses/data_line_broken_in_two",
        "google/generate_content/data_line_broken_in_two",
    ),
    "4 MB events": (
        "anthropic/messages/four_megabyte_event",
        "openai/chat_completions/four_megabyte_event",
        "openai/responses/four_megabyte_event",
        "google/generate_content/four_megabyte_event",
        "google/generate_content/four_megabyte_element",
        "bedrock/converse/four_megabyte_document",
    ),
    "non-UTF-8": (
        "anthropic/messages/bytes_that_are_not_utf8",
        "openai/chat_completions/bytes_that_are_not_utf8",
        "openai/responses/bytes_that_are_not_utf8",
        "google/generate_content/bytes_that_are_not_utf8",
    ),
}

_PAGE = re.compile(r"^\s+https://\S+$", re.MULTILINE)


def test_there_are_enough_and_each_api_has_some() -> None:
    assert len(transcripts()) >= MIN_CASES
    assert len({transcript.api.name for transcript in transcripts()}) >= 14


@pytest.mark.parametrize("what", SHOWN)
def test_what_must_be_shown_has_its_cases(what: str) -> None:
    assert [name for name in SHOWN[what] if not (ROOT / name / "expected.yaml").exists()] == []


@pytest.mark.parametrize("transcript", transcripts(), ids=lambda transcript: transcript.name)
def test_each_case_names_its_page_and_its_date(transcript: Transcript) -> None:
    assert _PAGE.search(transcript.source), transcript.source
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", transcript.source), transcript.source


def test_cases_show_what_they_are_named_for() -> None:
    by_name = {transcript.name: transcript for transcript in transcripts()}
    for name in SHOWN["truncated tool input"]:
        assert any(tool.get("truncated") for tool in by_name[name].expected_result["tools"]), name
    for name in SHOWN["parallel tools"]:
        assert len(by_name[name].expected_result["tools"]) >= 2, name
    for name in (*SHOWN["thinking"], *SHOWN["reasoning summaries"], *SHOWN["commentary"]):
        assert by_name[name].expected_result["thoughts"], name
    for name in SHOWN["cached tokens in each form"]:
        usage = by_name[name].expected_result["usage"]
        assert usage.get("cache_read_input_tokens") or usage.get("cache_write_input_tokens"), name
    for name in (*SHOWN["mid-stream error, flat"], *SHOWN["mid-stream error, nested"]):
        assert by_name[name].expected_result["error"], name
    for name in SHOWN["4 MB events"]:
        assert len(by_name[name].response) >= 4 << 20, name
