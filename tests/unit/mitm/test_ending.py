"""The rules of an ending, row by row, and what holds for every combination."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.assemble import Assembly
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.ending import error_of, outcome_of, usage_of
from aiproxyd.model.events import ProviderErrorReported, ResponseEnded, StreamEvent, TextDelta, UsageReported
from aiproxyd.model.outcome import MAX_ERROR_MESSAGE_BYTES, ErrorType, Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage

ENDED = [TextDelta(4), ResponseEnded("stop")]
FAILED = [ResponseEnded("failed", complete=False)]


def assembly_of(events: list[StreamEvent]) -> Assembly:
    assembly = Assembly()
    assembly.feed(events)
    return assembly


@pytest.mark.parametrize(
    ("events", "aborted_by", "facts", "expected"),
    [
        (ENDED, None, "streamed", "completed"),
        (ENDED, None, "", "completed"),
        ([TextDelta(4)], None, "streamed", "upstream_aborted"),
        ([], None, "", "completed"),
        ([], None, "unreadable", "parse_failed"),
        ([TextDelta(4)], None, "streamed unreadable", "parse_failed"),
        (ENDED, None, "streamed unreadable", "completed"),
        (FAILED, None, "streamed", "upstream_error"),
        ([], None, "error", "upstream_error"),
        ([], AbortedBy.CLIENT, "", "client_aborted"),
        ([], AbortedBy.CLIENT, "unreadable", "client_aborted"),
        (ENDED, AbortedBy.CLIENT, "streamed", "completed"),
        (ENDED, AbortedBy.UPSTREAM, "streamed", "completed"),
        (ENDED, AbortedBy.PROXY, "streamed", "completed"),
        ([], AbortedBy.CLIENT, "error", "upstream_error"),
        ([], AbortedBy.UPSTREAM, "", "upstream_aborted"),
        ([], AbortedBy.UNREACHABLE, "", "upstream_error"),
        ([], AbortedBy.PROXY, "streamed", "interrupted"),
        ([], AbortedBy.REFUSED, "", "refused"),
        (ENDED, AbortedBy.REFUSED, "error", "refused"),
    ],
)
def test_an_outcome_follows_the_first_rule_that_fits(
    events: list[StreamEvent], aborted_by: AbortedBy | None, facts: str, expected: str
) -> None:
    outcome = outcome_of(
        assembly_of(events),
        aborted_by,
        has_error="error" in facts,
        is_streamed="streamed" in facts,
        is_unreadable="unreadable" in facts,
    )
    assert outcome == expected


@pytest.mark.parametrize(
    ("outcome", "reported", "status_code", "provider_type", "expected"),
    [
        (Outcome.COMPLETED, None, 200, "openai", (None, "")),
        (Outcome.PARSE_FAILED, None, 200, "openai", (None, "")),
        (Outcome.UPSTREAM_ERROR, (ErrorType.RATE_LIMITED, "slow down"), 429, "openai", ("rate_limited", "slow down")),
        (Outcome.UPSTREAM_ERROR, (ErrorType.OVERLOADED, "busy"), 200, "anthropic", ("overloaded", "busy")),
        (Outcome.UPSTREAM_ERROR, (ErrorType.UNKNOWN, "?"), 529, "anthropic", ("overloaded", "?")),
        (Outcome.UPSTREAM_ERROR, (ErrorType.UNKNOWN, "?"), 200, "anthropic", ("unknown", "?")),
        (Outcome.UPSTREAM_ERROR, None, 502, "openai", ("server_error", "detail")),
        (Outcome.UPSTREAM_ERROR, None, 200, "openai", ("unknown", "detail")),
        (Outcome.REFUSED, None, 403, "openai", ("unauthorized", "detail")),
        (Outcome.CLIENT_ABORTED, None, 499, "openai", ("unknown", "detail")),
        (Outcome.UPSTREAM_ABORTED, None, 200, "openai", ("unknown", "detail")),
        (Outcome.INTERRUPTED, None, 503, "openai", ("unknown", "detail")),
    ],
)
def test_an_error_is_the_providers_own_word_before_its_status(
    outcome: Outcome,
    reported: tuple[ErrorType, str] | None,
    status_code: int,
    provider_type: str,
    expected: tuple[str | None, str],
) -> None:
    error = ProviderErrorReported(*reported) if reported is not None else None
    found = error_of(outcome, error, status_code=status_code, provider_type=provider_type, detail="detail")
    assert found == expected


@given(st.text(max_size=3000))
def test_a_message_is_cut_to_its_limit_at_the_end_of_a_character(message: str) -> None:
    error = ProviderErrorReported(ErrorType.UNKNOWN, message)
    _, cut = error_of(Outcome.UPSTREAM_ERROR, error, status_code=500, provider_type="openai", detail="")
    encoded = cut.encode()
    assert len(encoded) <= MAX_ERROR_MESSAGE_BYTES
    assert message.startswith(cut)
    assert cut == message or len(encoded) > MAX_ERROR_MESSAGE_BYTES - 4


def test_a_lone_surrogate_in_a_long_message_is_no_way_to_raise() -> None:
    error = ProviderErrorReported(ErrorType.UNKNOWN, "\ud800" * 2000)
    _, cut = error_of(Outcome.UPSTREAM_ERROR, error, status_code=500, provider_type="openai", detail="")
    assert cut == "?" * MAX_ERROR_MESSAGE_BYTES


REPORTED = TokenUsage(input_tokens=7, output_tokens=3)


@pytest.mark.parametrize(
    ("events", "outcome", "status_code", "input_characters", "expected"),
    [
        ([UsageReported(REPORTED)], Outcome.CLIENT_ABORTED, 200, 40, (UsageSource.REPORTED, REPORTED)),
        ([UsageReported(TokenUsage())], Outcome.COMPLETED, 200, 40, (UsageSource.REPORTED, TokenUsage())),
        ([UsageReported(REPORTED)], Outcome.UPSTREAM_ERROR, 200, 40, (UsageSource.REPORTED, REPORTED)),
        (ENDED, Outcome.COMPLETED, 200, 41, (UsageSource.ESTIMATED, TokenUsage(input_tokens=11, output_tokens=1))),
        ([], Outcome.COMPLETED, 200, 1, (UsageSource.ESTIMATED, TokenUsage(input_tokens=1))),
        ([], Outcome.COMPLETED, 200, 0, (UsageSource.NONE, TokenUsage())),
        ([TextDelta(400)], Outcome.UPSTREAM_ABORTED, 200, 0, (UsageSource.ESTIMATED, TokenUsage(output_tokens=100))),
        ([], Outcome.INTERRUPTED, 200, 4, (UsageSource.ESTIMATED, TokenUsage(input_tokens=1))),
        ([], Outcome.PARSE_FAILED, 200, 4, (UsageSource.ESTIMATED, TokenUsage(input_tokens=1))),
        ([], Outcome.CLIENT_ABORTED, 0, 400, (UsageSource.NONE, TokenUsage())),
        ([], Outcome.UPSTREAM_ERROR, 500, 400, (UsageSource.NONE, TokenUsage())),
        (ENDED, Outcome.UPSTREAM_ERROR, 200, 400, (UsageSource.NONE, TokenUsage())),
        ([], Outcome.REFUSED, 200, 400, (UsageSource.NONE, TokenUsage())),
        ([], Outcome.COMPLETED, 101, 400, (UsageSource.NONE, TokenUsage())),
        ([], Outcome.COMPLETED, 204, 400, (UsageSource.NONE, TokenUsage())),
        ([], Outcome.COMPLETED, 302, 400, (UsageSource.NONE, TokenUsage())),
    ],
)
def test_usage_is_reported_or_estimated_or_none(
    events: list[StreamEvent],
    outcome: Outcome,
    status_code: int,
    input_characters: int,
    expected: tuple[UsageSource, TokenUsage],
) -> None:
    assembly = assembly_of(events)
    assert usage_of(assembly, outcome, status_code=status_code, input_characters=input_characters) == expected


@given(
    st.sampled_from([[], ENDED, FAILED, [TextDelta(1)], [UsageReported(REPORTED)]]),
    st.none() | st.sampled_from(AbortedBy),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_no_combination_of_facts_is_without_an_outcome_and_only_whole_answers_are_completed(
    events: list[StreamEvent], aborted_by: AbortedBy | None, has_error: bool, is_streamed: bool, is_unreadable: bool
) -> None:
    assembly = assembly_of(events)
    outcome = outcome_of(assembly, aborted_by, has_error=has_error, is_streamed=is_streamed, is_unreadable=is_unreadable)
    if outcome is Outcome.COMPLETED:
        assert not has_error
        assert assembly.is_complete or (aborted_by is None and not is_streamed and not is_unreadable)
    assert (outcome is Outcome.REFUSED) is (aborted_by is AbortedBy.REFUSED)
    error_type, _ = error_of(outcome, None, status_code=0, provider_type="openai", detail="")
    assert (error_type is None) is (outcome in {Outcome.COMPLETED, Outcome.PARSE_FAILED})
