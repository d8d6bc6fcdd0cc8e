"""Twin of aiproxyd/storage/usage_report.py."""

import datetime as dt
import itertools

import pytest

from aiproxyd.model.outcome import Outcome
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.usage_report import FIGURES, Dimension, report_of, usage_of
from tests.support.observations import START, described, ended, of_worker, started

DAY = 86400


@pytest.fixture
async def filled(store: Store) -> Store:
    lines = []
    for number, (user, model, client) in enumerate(
        itertools.product(["alice", "bob"], ["claude", "gpt"], ["Codex", "Claude Code"])
    ):
        at = START + number * DAY / 4
        metadata = {"project": "web"} if number % 2 else {"repo": "api"}
        lines += [
            started(f"i{number}", at=at, user=user, client=client),
            described(f"i{number}", at=at, request_model=model, metadata=metadata),
        ]
        lines.append(ended(f"i{number}", at=at + 1, outcome=Outcome.CLIENT_ABORTED if number == 7 else Outcome.COMPLETED))
    await store.apply(of_worker("w", *lines, started("open", at=START)), {"w-00000001.jsonl": 1})
    return store


async def _rows(store: Store, *dimensions: Dimension, **conditions: object) -> list[dict]:
    return await store.read(lambda c: usage_of(c, Selection(**conditions), dimensions))


async def test_the_whole_is_one_row(filled: Store) -> None:
    (row,) = await _rows(filled)
    assert (row["requests"], row["failures"], row["output_tokens"]) == (9, 1, 8 * 300)
    assert row["total_tokens"] == 8 * (3 + 300 + 12_345)


@pytest.mark.parametrize("count", [1, 2, 6])
async def test_every_way_to_sum_up_gives_the_same_whole(filled: Store, count: int) -> None:
    for dimensions in itertools.combinations(Dimension, count):
        rows = await _rows(filled, *dimensions)
        assert sum(row["requests"] for row in rows) == 9
        for name in FIGURES:
            assert sum(row[name] for row in rows) == (await _rows(filled))[0][name]


async def test_users_have_names_and_the_heaviest_comes_first(filled: Store) -> None:
    rows = await _rows(filled, Dimension.USER)
    assert [row["user"] for row in rows] == [
        {"id": "id-of-alice", "name": "alice"},
        {"id": "id-of-bob", "name": "bob"},
    ]


async def test_days_are_in_order_and_projects_come_from_the_metadata(filled: Store) -> None:
    rows = await _rows(filled, Dimension.DAY)
    assert [row["day"] for row in rows] == ["2026-01-31", "2026-02-01", "2026-02-02"]
    rows = await _rows(filled, Dimension.PROJECT)
    assert {row["project"]: row["requests"] for row in rows} == {"web": 4, "api": 4, "": 1}


async def test_conditions_narrow_and_nothing_found_is_a_whole_of_zero(filled: Store) -> None:
    assert (await _rows(filled, model="gpt", initiator="bob"))[0]["requests"] == 2
    assert (await _rows(filled, model="none"))[0]["requests"] == 0
    assert await _rows(filled, Dimension.MODEL, model="none") == []


@pytest.mark.parametrize("after", [None, START, START + DAY / 3])
async def test_a_limit_takes_the_beginning_of_the_whole_list_and_leaves_the_total(filled: Store, after: float | None) -> None:
    conditions = {} if after is None else {"started_after": dt.datetime.fromtimestamp(after, dt.UTC)}
    selection = Selection(started_before=dt.datetime.fromtimestamp(START + 1.6 * DAY, dt.UTC), **conditions)
    for dimensions in ([Dimension.DAY], [Dimension.USER, Dimension.DAY], [Dimension.MODEL, Dimension.CLIENT], list(Dimension)):
        total, rows = await filled.read(lambda c, by=dimensions: report_of(c, selection, by))
        assert total["requests"] == sum(row["requests"] for row in rows)
        assert total["total_tokens"] == sum(row["total_tokens"] for row in rows) > 0
        for limit in range(1, len(rows) + 2):
            limited = await filled.read(lambda c, by=dimensions, n=limit: report_of(c, selection, by, limit=n))
            assert limited == (total, rows[:limit])
