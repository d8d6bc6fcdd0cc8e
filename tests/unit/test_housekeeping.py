"""Twin of aiproxyd/housekeeping.py: what is too old goes at the start, and a store that is away is tried again."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from aiproxyd import housekeeping
from aiproxyd.storage.listing import count_interceptions
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from tests.support.observations import life, of_worker

DAY = 86_400.0
AGES = {"records": 60 * DAY, "content": 0.0, "figures": 0.0}


@contextlib.asynccontextmanager
async def running(work):
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_old_records_go_at_the_start_and_after_a_store_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PRUNE_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr("aiproxyd.storage.engine.LOCK_TIMEOUT_SECONDS", 0.01)
    store = await Store.open(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    now = time.time()
    lines = [*life("old", at=now - 61 * DAY), *life("young", at=now - 59 * DAY)]
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})

    async def left() -> int:
        return await store.read(lambda c: count_interceptions(c, Selection()))

    lock = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)
    ages = dict(AGES)
    async with running(housekeeping.prune(store, lambda: ages)), asyncio.timeout(30):
        while await left() > 1:
            await asyncio.sleep(0.01)
        lock.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.05)
        ages["records"] = 58 * DAY
        lock.execute("ROLLBACK")
        while await left() > 0:
            await asyncio.sleep(0.01)
    lock.close()
    await store.close()


async def test_statistics_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "STATISTICS_INTERVAL_SECONDS", 0.01)
    store = await Store.open(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    await store.apply(of_worker("w", *life("a")), {"w-00000001.jsonl": 1})

    async def tables() -> int:
        return (
            await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'"))
        ).scalar_one()

    async with running(housekeeping.keep_statistics(store)), asyncio.timeout(30):
        while not await tables():
            await asyncio.sleep(0.01)
    await store.close()
