"""The journal reaches every sink once, whatever fails in between."""

import asyncio
import contextlib
import sqlite3

import pytest

from aiproxyd.fold import Fold
from aiproxyd.journal.segments import segments_in
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.model.observation import InterceptionDescribed, InterceptionEnded, InterceptionStarted
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.storage.store import Store

IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(40)]


class Ear:
    """A sink that keeps what it hears."""

    def __init__(self):
        self.heard = []
        self.lost = []

    def observe(self, worker_id, observation):
        self.heard.append((worker_id, observation))

    def worker_lost(self, worker_id):
        self.lost.append(worker_id)


def started(id_):
    return InterceptionStarted(
        at=1.0,
        interception_id=id_,
        provider="anthropic",
        provider_type="anthropic",
        api="anthropic.messages",
        method="POST",
        route="/v1/messages",
        host="api.anthropic.com",
        principal_id="00000000-0000-4000-8000-00000000000a",
        principal_name="alice",
    )


def ended(id_):
    return InterceptionEnded(
        at=2.0,
        interception_id=id_,
        outcome=Outcome.COMPLETED,
        usage_source=UsageSource.REPORTED,
        usage=TokenUsage(input_tokens=3),
        status_code=200,
    )


def write(writer, ids, *, end=True):
    for id_ in ids:
        writer.append(started(id_))
        writer.append(InterceptionDescribed(at=1.5, interception_id=id_, request_model="m"))
        if end:
            writer.append(ended(id_))
    writer.flush()


@pytest.fixture
async def store(tmp_path):
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.sqlite3'}")
    yield store
    await store.close()


def rows(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite3")) as database:
        return dict(database.execute("SELECT id, outcome FROM interceptions"))


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_line_reaches_each_sink_and_the_store_once(tmp_path, store):
    writer, ear = JournalWriter(tmp_path / "journal", "w1"), Ear()
    fold = Fold(tmp_path / "journal", store, [ear], {})
    fold.start()
    write(writer, IDS[:20])
    await until(lambda: len(ear.heard) == 60 and len(rows(tmp_path)) == 20)
    write(writer, IDS[20:])
    await fold.finish(10)
    assert len(ear.heard) == 120
    assert rows(tmp_path) == dict.fromkeys(IDS, "completed")
    writer.close()


async def test_a_dead_worker_is_told_once_and_what_it_left_open_ends_as_interrupted(tmp_path, store):
    writer, ear = JournalWriter(tmp_path / "journal", "w1"), Ear()
    fold = Fold(tmp_path / "journal", store, [ear], {})
    fold.start()
    write(writer, IDS[:2])
    write(writer, IDS[2:4], end=False)
    await until(lambda: len(ear.heard) == 10)
    assert ear.lost == []
    writer.close()
    await until(lambda: ear.lost == ["w1"] and rows(tmp_path).get(IDS[3]) == "interrupted")
    await until(lambda: not segments_in(tmp_path / "journal"))
    await fold.finish(10)
    assert ear.lost == ["w1"]
    assert list(rows(tmp_path).values()) == ["completed"] * 2 + ["interrupted"] * 2


async def test_a_store_that_is_locked_holds_up_nobody_and_catches_up(tmp_path, store):
    writer, ear, failures = JournalWriter(tmp_path / "journal", "w1"), Ear(), []
    fold = Fold(tmp_path / "journal", store, [ear], {})
    fold.on_store_error = lambda: failures.append(1)
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        fold.start()
        write(writer, IDS)
        await until(lambda: len(ear.heard) == 120)
        await until(lambda: failures)
        assert fold.store_error
        assert fold.lag_seconds > 0
        other.rollback()
    await until(lambda: len(rows(tmp_path)) == 40)
    await until(lambda: not fold.store_error)
    await until(lambda: fold.lag_seconds == 0)
    await fold.finish(10)
    assert len(ear.heard) == 120
    writer.close()


async def test_a_store_that_takes_every_line_is_not_behind_however_steadily_they_come(tmp_path, store):
    writer, lags = JournalWriter(tmp_path / "journal", "w1"), []
    fold = Fold(tmp_path / "journal", store, [Ear()], {})

    def more(_seconds: float, _lines: int) -> None:
        # So that the next look finds lines again: no look in between ever finds none.
        write(writer, [IDS[len(lags)]])
        asyncio.get_running_loop().call_soon(lambda: lags.append(fold.lag_seconds))

    write(writer, IDS[-1:])
    fold.on_store_write = more
    fold.start()
    await until(lambda: len(lags) >= 3)
    fold.on_store_write = lambda _seconds, _lines: None
    await fold.finish(10)
    assert lags == [0.0] * len(lags)
    writer.close()


async def test_a_second_fold_goes_on_where_the_store_stands(tmp_path, store):
    writer = JournalWriter(tmp_path / "journal", "w1")
    for ids in (IDS[:20], IDS[20:]):
        ear = Ear()
        fold = Fold(tmp_path / "journal", store, [ear], await store.positions())
        write(writer, ids)
        await fold.finish(10)
        assert len(ear.heard) == 60
    assert len(rows(tmp_path)) == 40
    writer.close()


async def test_what_the_store_does_not_take_in_time_waits_in_the_journal(tmp_path, store):
    writer, ear = JournalWriter(tmp_path / "journal", "w1"), Ear()
    write(writer, IDS)
    writer.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        await Fold(tmp_path / "journal", store, [ear], {}).finish(0.2)
        other.rollback()
    assert rows(tmp_path) == {}
    await Fold(tmp_path / "journal", store, [Ear()], await store.positions()).finish(10)
    assert len(rows(tmp_path)) == 40
