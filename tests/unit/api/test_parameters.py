"""Twin of aiproxyd/api/parameters.py: times, cursors and dimensions. The rest is seen through the application."""

import datetime as dt

import pytest

from aiproxyd.api.parameters import cursor, dimensions, is_storable, time_of
from aiproxyd.api.problems import Problem
from aiproxyd.storage.usage_report import Dimension


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-01-31T08:00:00Z", 8),
        ("2026-01-31T08:00:00.123456Z", 8),
        ("2026-01-31T09:00:00+01:00", 8),
        ("2026-01-31T09:00:00 01:00", 8),
        ("2026-01-31T08:00:00", None),
        ("2026-01-31", None),
        ("yesterday", None),
        ("", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2026-02-30T00:00:00Z", None),
    ],
)
def test_times_have_a_zone(text: str, hour: int | None) -> None:
    time = time_of(text)
    assert (time.hour if time else None) == hour
    assert time is None or time.tzinfo is dt.UTC


def test_a_cursor_stands_alone() -> None:
    assert cursor("after_id", "x", {"offset": 0}) == "x"
    assert cursor("after_id", "", {"offset": 5}) == ""
    with pytest.raises(Problem, match="invalid values"):
        cursor("after_id", "x", {"offset": 5})
    with pytest.raises(Problem):
        cursor("after_id", "x\0", {})


def test_dimensions_are_told_with_commas_or_repeated() -> None:
    assert dimensions(["user, model", "day"]) == [Dimension.USER, Dimension.MODEL, Dimension.DAY]
    for wrong in (["colour"], ["day", "day"]):
        with pytest.raises(Problem):
            dimensions(wrong)


def test_what_no_database_takes_is_in_no_record() -> None:
    assert [is_storable(text) for text in ("a", "ä\n", "a\0", "\ud800")] == [True, True, False, False]
