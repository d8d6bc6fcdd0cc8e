"""Twin of aiproxyd/storage/retention.py: what is too old, and how much of it goes at once."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.observation import UnknownEventsSeen
from aiproxyd.model.outcome import ErrorType, Outcome
from aiproxyd.storage.listing import count_interceptions, list_page
from aiproxyd.storage.retention import (
    AIMED_SECONDS,
    MAX_HOLD_SECONDS,
    BatchSize,
    Pruned,
    Retention,
    delete_content,
    delete_records,
    records_with_content,
    would_go,
)
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, of_worker, started, thought, tool_called

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = 86_400.0


def at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(START + seconds, dt.UTC)


def test_ages_become_times_and_nothing_is_kept_by_zero() -> None:
    found = Retention.by_age(NOW, records=60 * DAY, content=DAY, figures=400 * DAY)
    assert found.records_before == NOW - dt.timedelta(days=60)
    assert found.content_before == NOW - dt.timedelta(days=1)
    assert found.figures_before == NOW - dt.timedelta(days=400)
    assert Retention.by_age(NOW, records=0, content=0, figures=0) == Retention()
    # An age before the calendar begins keeps everything.
    assert Retention.by_age(NOW, records=1e15, content=1e11, figures=1e11) == Retention()


def test_figures_do_not_go_before_their_records() -> None:
    assert Retention.by_age(NOW, records=60 * DAY, content=0, figures=DAY).figures_before == NOW - dt.timedelta(days=60)
    assert Retention.by_age(NOW, records=0, content=0, figures=DAY).figures_before is None


@given(
    fixed=st.floats(0, 0.015),
    a_row=st.floats(1e-6, 0.01),
    noise=st.lists(st.floats(0.5, 1.5), min_size=60, max_size=60),
)
def test_no_transaction_is_longer_than_it_may_be_whatever_a_row_costs(fixed: float, a_row: float, noise: list[float]) -> None:
    size = BatchSize()
    for number, factor in enumerate(noise):
        rows = size.rows
        seconds = (fixed + rows * a_row) * factor
        size.took(rows, seconds)
        if number >= 8:
            # Half as long again by growth, and three times by noise, still stays below.
            smallest = (fixed + a_row) * 1.5
            assert seconds <= max(MAX_HOLD_SECONDS, AIMED_SECONDS * 1.5 * 3, smallest)


def test_a_slow_transaction_makes_the_next_one_small_at_once_and_growth_is_slow() -> None:
    size = BatchSize(1000, aimed_seconds=0.02)
    size.took(1000, 0.1)
    assert size.rows == 200
    size.took(200, 0.0001)
    assert size.rows == 301
    size.took(301, 0.04)
    assert size.rows == 150
    size.took(150, 0.001)
    assert size.rows == 226
    size.rows = 151
    size.took(151, 10.0)
    assert size.rows == 18
    for _ in range(3):
        size.took(size.rows, 10.0)
    assert size.rows == 1
    for _ in range(100):
        size.took(size.rows, 1e-9)
    assert size.rows == 5000
    size.took(0, 0.0)
    assert size.rows >= 1


@pytest.fixture
async def filled(store: Store) -> Store:
    lines = []
    for number in range(10):
        id_ = f"i{number}"
        lines += [
            started(id_, at=START + number),
            described(id_, at=START + number),
            thought(id_),
            tool_called(id_, f"c{number}"),
        ]
        lines.append(ended(id_, at=START + number + 1))
    lines += [started("failed", at=START + 10), described("failed", prompt=None, has_prompt=False)]
    lines.append(
        ended(
            "failed",
            outcome=Outcome.UPSTREAM_ERROR,
            error_type=ErrorType.OVERLOADED,
            error_message="You said: my secret prompt",
        )
    )
    lines.append(UnknownEventsSeen(at=START, provider="anthropic", api="a", counts={"new": 1}, samples={}))
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    return store


async def test_the_oldest_go_first_with_all_that_belongs_to_them(filled: Store) -> None:
    async def delete(limit: int) -> int:
        count, seconds = await filled.write_timed(lambda c: delete_records(c, at(5), limit))
        assert seconds > 0
        return count

    assert [await delete(3), await delete(3), await delete(3)] == [3, 2, 0]
    left = await filled.read(lambda c: list_page(c, Selection(), oldest_first=True))
    assert [record["id"] for record in left] == ["i5", "i6", "i7", "i8", "i9", "failed"]
    for table in ("token_usages", "user_prompts", "tool_usages", "model_thoughts"):
        count = await filled.read(lambda c, table=table: c.exec_driver_sql(f"SELECT count(*) FROM {table}"))
        assert count.scalar_one() == (6 if table == "token_usages" else 5)
    assert await filled.read(lambda c: count_interceptions(c, Selection())) == 6


async def test_content_goes_and_figures_and_names_stay(filled: Store) -> None:
    before = await filled.read(lambda c: list_page(c, Selection()))
    ids, place = await filled.read(lambda c: records_with_content(c, None, at(11)))
    assert (len(ids), place) == (11, None)
    await filled.write_timed(lambda c: delete_content(c, ids))
    assert await filled.read(lambda c: records_with_content(c, None, at(11))) == ([], None)
    after = await filled.read(lambda c: list_page(c, Selection()))
    assert "secret" not in str(after)
    for old, new in zip(before, after, strict=True):
        assert (new["token_usages"], new["has_prompt"]) == (old["token_usages"], old["has_prompt"])
        assert [tool["tool"] for tool in new["tool_usages"]] == [tool["tool"] for tool in old["tool_usages"]]
        assert [tool["input"] for tool in new["tool_usages"]] == [None] * len(old["tool_usages"])
        assert (new["user_prompts"], new["model_thoughts"], new["error_message"]) == ([], [], None)


async def test_what_would_go_is_told_and_stays(filled: Store) -> None:
    retention = Retention(records_before=at(4), content_before=at(9), figures_before=at(0))
    found = await filled.read(lambda c: would_go(c, retention))
    assert found == Pruned(interceptions=4, contents=5, unknown_events=1)
    assert await filled.read(lambda c: would_go(c, Retention())) == Pruned()
    assert await filled.read(lambda c: count_interceptions(c, Selection())) == 11
