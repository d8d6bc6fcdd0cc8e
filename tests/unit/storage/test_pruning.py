"""Twin of aiproxyd/storage/pruning.py: a run deletes all that is too old, in short transactions, and gives the room back."""

import asyncio
import contextlib
import datetime as dt
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.model.observation import UnknownEventsSeen
from aiproxyd.storage.engine import url_of
from aiproxyd.storage.listing import count_interceptions
from aiproxyd.storage.pruning import Pruning, compact_sqlite
from aiproxyd.storage.retention import Retention, are_unknown_events_old, delete_figures
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import usage_rollups
from aiproxyd.storage.usage_report import Dimension, usage_of
from tests.bench.seed_store import seed
from tests.support.observations import START, life, of_worker

UNTIL = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
BEFORE = UNTIL - dt.timedelta(days=5)
COUNT = 1000


async def _count(store: Store, **facts: object) -> int:
    return await store.read(lambda c: count_interceptions(c, Selection(**facts)))


async def test_a_run_leaves_what_is_young_and_every_figure(database_url: str) -> None:
    await seed(database_url, COUNT, 10, until=UNTIL)
    store = await Store.open(database_url)
    dimensions = (Dimension.DAY, Dimension.USER, Dimension.MODEL)
    figures = await store.read(lambda c: usage_of(c, Selection(), dimensions))
    young = await _count(store, started_after=BEFORE)
    assert 0 < young < COUNT
    shown: list[int] = []
    done = await Pruning(store, advance=shown.append).run(Retention(records_before=BEFORE), UNTIL)
    assert (done.interceptions, done.contents) == (COUNT - young, 0)
    assert sum(shown) == done.interceptions
    assert len(shown) > 5, "not at once"
    assert await _count(store) == young
    assert await _count(store, started_before=BEFORE - dt.timedelta(microseconds=1)) == 0
    # The records are gone; what they add up to is not.
    assert await store.read(lambda c: usage_of(c, Selection(), dimensions)) == figures
    again = await Pruning(store, pause=False).run(Retention(records_before=BEFORE), UNTIL)
    assert (again.interceptions, again.figures) == (0, 0)
    gone = await Pruning(store, pause=False).run(Retention(records_before=BEFORE, figures_before=BEFORE), UNTIL)
    assert gone.figures > 0
    days = {row["day"] for row in await store.read(lambda c: usage_of(c, Selection(), [Dimension.DAY]))}
    assert min(days) == BEFORE.date().isoformat(), "the day that is cut keeps its figures"
    await store.close()


async def test_content_goes_before_the_records(database_url: str) -> None:
    await seed(database_url, COUNT, 10, until=UNTIL)
    store = await Store.open(database_url)
    retention = Retention(records_before=BEFORE, content_before=UNTIL + dt.timedelta(days=1))
    done = await Pruning(store, pause=False).run(retention, UNTIL)
    assert done.contents > 0
    for table in ("user_prompts", "model_thoughts"):
        assert (await store.read(lambda c, table=table: c.exec_driver_sql(f"SELECT count(*) FROM {table}"))).scalar_one() == 0
    left = await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM tool_usages WHERE input IS NOT NULL"))
    assert left.scalar_one() == 0
    assert (await Pruning(store).run(retention, UNTIL)).contents == 0
    await store.close()


async def test_two_runs_and_ingest_at_once_neither_lose_nor_double(database_url: str) -> None:
    await seed(database_url, COUNT, 10, until=UNTIL)
    stores = [await Store.open(database_url) for _ in range(3)]
    retention = Retention(records_before=BEFORE, content_before=UNTIL)

    async def ingest() -> None:
        for number in range(40):
            lines = of_worker("w", *life(f"new{number}", at=UNTIL.timestamp() + number))
            await stores[2].apply(lines, {"w-00000001.jsonl": number + 1})

    one, other, _ = await asyncio.gather(*(Pruning(store).run(retention, UNTIL) for store in stores[:2]), ingest())
    young = await _count(stores[0])
    assert one.interceptions + other.interceptions == COUNT + 40 - young
    rows = await stores[0].read(lambda c: c.exec_driver_sql("SELECT count(*) FROM interceptions"))
    assert rows.scalar_one() == young
    total = (await stores[0].read(lambda c: usage_of(c, Selection(), [])))[0]
    assert total["requests"] == COUNT + 40
    for store in stores:
        await store.close()


async def test_unknown_events_and_rows_of_nothing_go_too(store: Store) -> None:
    lines = of_worker("w", *life("a"))
    lines += of_worker("w", UnknownEventsSeen(at=START, provider="p", api="a", counts={"old": 1}, samples={}))
    await store.apply(lines[:1], {"w-00000001.jsonl": 1})
    await store.apply(lines[1:], {"w-00000001.jsonl": 2})
    later = dt.datetime.fromtimestamp(START, dt.UTC) + dt.timedelta(days=3)
    done = await Pruning(store).run(Retention(records_before=later - dt.timedelta(days=1)), later)
    assert (done.interceptions, done.unknown_events) == (1, 1)
    # The row for requests without a model, as they all are at first.
    assert done.figures == 1
    assert await store.unknown_events() == []


async def test_a_sqlite_file_becomes_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.sqlite3"
    url = f"sqlite:///{path}"
    await seed(url, 8000, 10, until=UNTIL)
    store = await Store.open(url)
    size = path.stat().st_size
    pages: list[int] = []
    transact = store.write_timed

    async def counting(change: Callable[[AsyncConnection], Awaitable[int]]) -> tuple[int, float]:
        count, _ = await transact(change)
        pages.append(count)
        # A quick machine's, so that the number of transactions does not depend on this one.
        return count, 0.001

    monkeypatch.setattr(store, "write_timed", counting)
    done = await Pruning(store, pause=False).run(Retention(records_before=UNTIL + dt.timedelta(days=1)), UNTIL)
    assert done.freed_bytes > size / 2
    assert len(pages) < done.freed_bytes / 4096 / 4, "many pages a transaction"
    await store.close()
    # A deletion may take some pages itself before it frees any.
    assert path.stat().st_size <= size - done.freed_bytes + 8 * 4096


async def test_a_file_that_was_made_otherwise_is_written_anew(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "store.sqlite3"
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA auto_vacuum=NONE")
        plain.execute("CREATE TABLE first (x)")
        plain.execute("DROP TABLE first")
    plain.close()
    url = f"sqlite:///{path}"
    await seed(url, 8000, 10, until=UNTIL)
    store = await Store.open(url)
    done = await Pruning(store, pause=False).run(Retention(records_before=UNTIL + dt.timedelta(days=1)), UNTIL)
    assert done.freed_bytes == 0
    await store.close()
    size = path.stat().st_size
    freed = await compact_sqlite(url_of(url))
    assert freed > size / 2
    assert path.stat().st_size == size - freed
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    plain.close()


async def test_a_look_for_what_is_not_there_keeps_nobody_from_writing(database_url: str) -> None:
    """Empty figures are looked for among all the others, at every run."""
    if not database_url.startswith("sqlite"):
        pytest.skip("only SQLite has one writer")
    await seed(database_url, 200, 10, until=UNTIL)
    store = await Store.open(database_url)
    with contextlib.closing(sqlite3.connect(str(url_of(database_url).database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not await Pruning(store).run(Retention(), UNTIL)
        assert not await store.read(lambda c: are_unknown_events_old(c, UNTIL))
        other.execute("ROLLBACK")
    await store.close()


async def test_figures_that_filled_again_after_the_look_stay(store: Store) -> None:
    await store.apply(of_worker("w", *life("a")), {"w-00000001.jsonl": 1})
    (row,) = (await store.read(lambda c: c.execute(select(usage_rollups)))).all()
    for condition, gone in ((usage_rollups.c.kept == 0, 0), (usage_rollups.c.kept == 1, 1)):
        count, _ = await store.write_timed(lambda c, condition=condition: delete_figures(c, [row.id], condition))
        assert count == gone
