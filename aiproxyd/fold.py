"""Folds the workers' journals into the sinks: at once into those in memory, in transactions into the store.

Two readers, because they fail apart. The live one never waits, so metrics move while the store is down. The store's position is
saved with the rows of the same transaction, so a line is applied exactly once however often anything restarts.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from aiproxyd.beat import next_beat
from aiproxyd.exceptions import StorageError
from aiproxyd.journal.follower import Batch, Follower
from aiproxyd.model.observation import Observation
from aiproxyd.storage.store import Store

log = structlog.get_logger("aiproxyd.fold")

# How long a line waits before it is looked for, by five quarters at most (see `beat`): at first, and when nothing has come for a while.
# On one beat with whoever else looks now and then.
LIVE_INTERVAL_SECONDS = 0.25
MAX_LIVE_INTERVAL_SECONDS = 0.5

# Records wait and go together: a transaction costs as much as twenty of them, however few it has, and a thousand fill the pages of
# the database's indexes better than four times 250, which cost a third more.
STORE_INTERVAL_SECONDS = 1.0
STORE_READ_BYTES = 1 << 20

# How often dead workers and consumed segments are looked for: it means a try at every worker's lock.
TIDY_INTERVAL_SECONDS = 1.0

FIRST_RETRY_SECONDS = 0.25
MAX_RETRY_SECONDS = 5.0


class LiveSink(Protocol):
    """What listens to observations as they come; fast, and never raises."""

    def observe(self, worker_id: str, observation: Observation) -> None:
        """Take one observation."""

    def worker_lost(self, worker_id: str) -> None:
        """Know that a worker is dead and all it wrote has been seen."""


class Fold:
    """Both readers and what they feed."""

    def __init__(self, folder: Path, store: Store, sinks: Sequence[LiveSink], positions: Mapping[str, int]) -> None:
        """Prepare to read.

        Args:
            folder: The journal's.
            store: Gets every line, in transactions.
            sinks: Get every line that the store has not got yet, at once.
            positions: How far the store is, by segment.
        """
        self.store_error = ""
        """Why the store does not take rows just now; empty while it does."""
        self.on_store_write: Callable[[float, int], None] = lambda _seconds, _lines: None
        """Called after each transaction with its duration in seconds and its number of lines."""
        self.on_store_error: Callable[[], None] = lambda: None
        """Called after each transaction that failed."""
        self._store = store
        self._sinks = sinks
        self._live = Follower(folder, positions)
        self._stored = Follower(folder, positions)
        self._behind_since: float | None = None
        self._live_tidied_at = self._store_tidied_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lag_seconds(self) -> float:
        """For how long there have been lines that the store has not got."""
        return 0.0 if self._behind_since is None else time.monotonic() - self._behind_since

    def start(self) -> None:
        """Begin to read."""
        self._tasks = [asyncio.ensure_future(self._run_live()), asyncio.ensure_future(self._run_store())]

    async def finish(self, timeout_seconds: float) -> None:
        """Read what there is and stop; what the store does not take in time waits for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            while self._read_live(tidies=True):
                pass
        try:
            async with asyncio.timeout(timeout_seconds):
                # The batch that was under way when its task was cancelled may or may not have got through.
                await self._rewind()
                while await self._write_store(tidies=True):
                    pass
        except (TimeoutError, StorageError, OSError) as exc:
            log.warning("the store has not got every record; the journal keeps the rest", error=str(exc) or "time is over")

    async def _run_live(self) -> None:
        interval_seconds = LIVE_INTERVAL_SECONDS
        while True:
            batch = Batch()
            try:
                batch = self._read_live()
            except OSError as exc:
                log.error("the journal cannot be read", error=str(exc))
            except Exception:
                # A reader that dies unseen would freeze every metric; what one batch did to a sink must not stop the next.
                log.exception("a batch was not folded into the metrics")
            interval_seconds = LIVE_INTERVAL_SECONDS if batch else min(interval_seconds * 2, MAX_LIVE_INTERVAL_SECONDS)
            await (asyncio.sleep(0) if batch.is_full else next_beat(interval_seconds))

    def _read_live(self, *, tidies: bool = False) -> Batch:
        """Show the sinks one batch and return it, empty when there was none."""
        batch = self._live.read()
        # Before the sinks, so that a line one of them trips over is not met again and again.
        self._live.mark_applied(batch.positions)
        for worker_id, observation in batch.lines:
            for sink in self._sinks:
                sink.observe(worker_id, observation)
        now = time.monotonic()
        if tidies or now - self._live_tidied_at >= TIDY_INTERVAL_SECONDS:
            self._live_tidied_at = now
            for worker_id in self._live.lost_workers():
                for sink in self._sinks:
                    sink.worker_lost(worker_id)
                self._live.forget(worker_id)
        return batch

    async def _run_store(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                batch = await self._write_store()
            except Exception as exc:
                # Any failure, a fault of ours included: the journal keeps the lines, and the next try may find it mended.
                if not self.store_error:
                    expected = isinstance(exc, StorageError | OSError)
                    log.error("the store does not take records; the journal keeps them", error=str(exc), exc_info=not expected)
                self.store_error = str(exc) or type(exc).__name__
                self.on_store_error()
                await self._rewind()
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, MAX_RETRY_SECONDS)
                continue
            if self.store_error:
                log.info("the store takes records again")
                self.store_error = ""
            retry_seconds = FIRST_RETRY_SECONDS
            # Far behind there is nothing to wait for.
            await (asyncio.sleep(0) if batch.is_full else next_beat(STORE_INTERVAL_SECONDS))

    async def _rewind(self) -> None:
        """Stand where the store does: a transaction whose answer was lost may have been committed."""
        try:
            self._stored.rewind(await self._store.positions())
        except StorageError:
            self._stored.rewind()

    async def _write_store(self, *, tidies: bool = False) -> Batch:
        """Apply one batch and return it, empty when there was none."""
        batch = self._stored.read(max_bytes=STORE_READ_BYTES)
        if batch:
            started = time.monotonic()
            if self._behind_since is None:
                self._behind_since = started
            await self._store.apply(batch.lines, batch.positions, starts=batch.starts)
            self._stored.mark_applied(batch.positions)
            self.on_store_write(time.monotonic() - started, len(batch.lines))
        if not batch.is_full:
            self._behind_since = None
        now = time.monotonic()
        if not tidies and now - self._store_tidied_at < TIDY_INTERVAL_SECONDS:
            return batch
        self._store_tidied_at = now
        for worker_id in self._stored.lost_workers():
            await self._store.end_interrupted(worker_id, time.time())
            self._stored.forget(worker_id)
        removed = self._stored.remove_consumed(self._live.positions)
        if removed:
            await self._store.forget_positions(removed)
        return batch
