"""Twin of aiproxyd/storage/rows.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.observation import Observation
from aiproxyd.model.usage import MAX_TOKENS, TokenUsage
from aiproxyd.storage.rows import MAX_WORD_CHARACTERS, changes_of, interceptions_of, storable, time_of
from tests.support.observations import START, described, ended, life, of_worker, progressed, started, thought, tool_called


@given(st.text(st.characters()))
def test_storable_text_has_neither_nul_nor_surrogates_and_keeps_the_rest(text: str) -> None:
    result = storable(text)
    result.encode()
    assert "\0" not in result
    assert len(result) == len(text)
    assert all(new == old or new == "\ufffd" for new, old in zip(result, text, strict=True))
    assert storable(result) == result


def test_text_is_cut_to_a_number_of_characters() -> None:
    assert storable("abc", 2) == "ab"
    assert storable("abc", 3) == "abc"


@pytest.mark.parametrize("at", [1e18, -1e18, 1e15, 1e300])
def test_a_time_outside_the_calendar_is_refused(at: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        time_of(at)


def test_lines_name_the_interceptions_that_they_do_not_begin() -> None:
    lines = of_worker("w", *life("a"), described("b"), ended("c"), thought("a"))
    assert interceptions_of(lines) == ({"a"}, {"b", "c"})


def test_an_interception_that_begins_in_the_run_is_one_row() -> None:
    changes = changes_of(of_worker("w", *life("a", calls="t")), {})
    assert list(changes.started) == ["a"]
    row = changes.started["a"]
    assert (row["worker_id"], row["model"], row["outcome"], row["session_id"]) == ("w", "claude-sonnet-4-5", "completed", "a")
    assert (changes.described, changes.ended, changes.answered_prompts) == ({}, {}, {})
    assert changes.prompts["a"]["provider_response_id"] == "msg_1"


def test_rows_of_a_table_have_equal_columns_whatever_the_lines_say() -> None:
    """Many rows go in one statement, which has one set of columns."""
    variants: list[list[Observation]] = [
        life("a", calls="t"),
        [started("b", user="bob", principal_groups=("g",))],
        [started("c"), described("c", prompt=None, client_session_id="s", anomaly="x")],
        [started("d"), ended("d", error_message="no", metadata={"service_tier": "flex"})],
        [started("e"), progressed("e"), tool_called("e", "", arguments=None), thought("e")],
    ]
    changes = changes_of(of_worker("w", *(line for lines in variants for line in lines)), {})
    for rows in (changes.started, changes.tokens, changes.prompts, changes.tools, changes.thoughts, changes.users):
        assert len({tuple(sorted(row)) for row in rows.values()}) == 1


def test_absurd_token_counts_are_kept_within_reason() -> None:
    usage = TokenUsage(input_tokens=1 << 70, output_tokens=-5, extra={"odd": 1 << 70, "none": 0})
    row = changes_of(of_worker("w", started("a"), ended("a", usage=usage)), {}).tokens["a"]
    assert (row["input_tokens"], row["output_tokens"], row["metadata"]) == (MAX_TOKENS, 0, {"odd": MAX_TOKENS})


def test_the_error_message_is_cut_to_1024_bytes_of_whole_characters() -> None:
    row = changes_of(of_worker("w", started("a"), ended("a", error_message="é" * 1000 + "x")), {}).started["a"]
    assert row["error_message"] == "é" * 512


def test_equal_call_ids_stay_equal_when_they_are_cut() -> None:
    """A thread is linked by them."""
    long = "x" * 5000
    changes = changes_of(
        of_worker("w", started("a"), tool_called("a", long), described("a", correlating_tool_call_id=long)), {}
    )
    assert changes.started["a"]["correlating_tool_call_id"] == changes.tools["a", 0]["provider_tool_call_id"]
    assert len(changes.tools["a", 0]["provider_tool_call_id"]) == MAX_WORD_CHARACTERS


def test_a_run_without_a_beginning_changes_nothing() -> None:
    changes = changes_of(of_worker("w", *life("a", at=START, calls="t")[1:]), {})
    assert changes.orphans == 4
    for rows in (changes.started, changes.described, changes.ended, changes.tokens, changes.tools):
        assert rows == {}
