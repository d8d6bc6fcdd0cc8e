"""Runs a retention to its end: one short transaction after the other, with a pause behind each that lasts as long as it did.

It may be stopped between any two of them, and run by several daemons and a command at once; what is left goes the next time.
"""

import asyncio
import datetime as dt
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import ColumnElement
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.exceptions import StorageError
from aiproxyd.storage import retention as parts
from aiproxyd.storage.retention import BatchSize, Pruned, Retention
from aiproxyd.storage.store import Store

# Pages of 4 KiB that SQLite moves and cuts off at first, and at most.
_FIRST_PAGES = 100
_MOST_PAGES = 400

# So many freed pages may stay in the file: 4 MiB that the next rows fill.
_SPARE_PAGES = 1024

# A commit that finds SQLite's WAL full moves it into the database before it returns: up to a second on a busy disk, though others
# may write meanwhile. Moved between transactions, a few at a time, it is never full, and what a transaction took is what it held.
_TRANSACTIONS_A_CHECKPOINT = 16

Advance = Callable[[int], None]


class Pruning:
    """One run."""

    def __init__(self, store: Store, *, advance: Advance = lambda _: None, pause: bool = True) -> None:
        """
        Args:
            store: From which things go.
            advance: Called with the number of records that a transaction was about.
            pause: Whether others get their turn between transactions for as long as those took.
        """
        self.done = Pruned()
        self._store = store
        self._advance = advance
        self._pause = pause
        self._transactions = 0

    async def run(self, retention: Retention, now: dt.datetime) -> Pruned:
        """Delete all that `retention` names and return how much that was.

        Raises:
            StorageError: The rest is still there.
        """
        if (before := retention.records_before) is not None:
            self.done.interceptions = await self._repeat(lambda c, n: parts.delete_records(c, before, n))
            # Mostly there are none, and who only looks keeps nobody from writing.
            if await self._store.read(lambda c: parts.are_unknown_events_old(c, before)):
                self.done.unknown_events = await self._once(lambda c: parts.delete_unknown_events(c, before))
        if retention.content_before is not None:
            await self._delete_content(retention.content_before)
        for condition in (
            parts.empty_figures(now),
            *([parts.figures_to_go(retention.figures_before)] if retention.figures_before is not None else []),
        ):
            self.done.figures += await self._delete_figures(condition)
        await self._give_back()
        return self.done

    async def _delete_content(self, before: dt.datetime) -> None:
        size = BatchSize()
        place: parts.Place | None = None
        while True:
            at = place
            ids, place = await self._store.read(lambda c, at=at: parts.records_with_content(c, at, before))  # type: ignore[misc]  # bound at once
            while ids:
                piece, ids = ids[: size.rows], ids[size.rows :]
                self.done.contents += await self._timed(size, lambda c, piece=piece: parts.delete_content(c, piece))  # type: ignore[misc]  # bound at once
                self._advance(len(piece))
            if place is None:
                return

    async def _delete_figures(self, condition: ColumnElement[bool]) -> int:
        size = BatchSize()
        gone = 0
        while ids := await self._store.read(lambda c: parts.figures_with(c, condition)):
            before = gone
            while ids:
                piece, ids = ids[: size.rows], ids[size.rows :]
                gone += await self._timed(size, lambda c, piece=piece: parts.delete_figures(c, piece, condition))  # type: ignore[misc]  # bound at once
            if gone == before:
                # Somebody else was quicker, or they are full again.
                break
        return gone

    async def _repeat(self, delete: Callable[[AsyncConnection, int], Awaitable[int]]) -> int:
        """Call `delete` with as many records as fit until nothing is left."""
        size = BatchSize()
        gone = 0
        while True:
            rows = size.rows
            count = await self._timed(size, lambda c, rows=rows: delete(c, rows))  # type: ignore[misc]  # bound at once
            gone += count
            self._advance(count)
            if count < rows:
                return gone

    async def _once(self, delete: Callable[[AsyncConnection], Awaitable[int]]) -> int:
        return await self._timed(BatchSize(), delete)

    async def _timed(self, size: BatchSize, change: Callable[[AsyncConnection], Awaitable[int]]) -> int:
        count, seconds = await self._store.write_timed(change)
        size.took(count, seconds)
        self.done.longest_seconds = max(self.done.longest_seconds, seconds)
        self._transactions += 1
        if self._store.is_sqlite and self._transactions % _TRANSACTIONS_A_CHECKPOINT == 0:
            await self._store.checkpoint()
        if self._pause:
            await asyncio.sleep(seconds)
        return count

    async def _give_back(self) -> None:
        """Cut SQLite's file down to what it holds, a few pages at a time."""
        if not self._store.is_sqlite:
            return
        before = await self._store.read(_file_bytes)
        # Free pages at the end of the file cost nothing and say nothing about those that must be moved, which come behind them.
        size = BatchSize(_FIRST_PAGES, most=_MOST_PAGES)
        while True:
            free, mode = await self._store.read(_free_pages)
            if free <= _SPARE_PAGES or mode != _INCREMENTAL:
                break
            pages = min(size.rows, free - _SPARE_PAGES)
            freed = await self._timed(size, lambda c, pages=pages: _free(c, pages))  # type: ignore[misc]  # bound at once
            if not freed:
                break
        self.done.freed_bytes = max(0, before - await self._store.read(_file_bytes))
        await self._store.checkpoint()


# What `PRAGMA auto_vacuum` says of a file that can be cut down in steps.
_INCREMENTAL = 2


async def _pragma(connection: AsyncConnection, name: str) -> int:
    return int((await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one())


async def _free_pages(connection: AsyncConnection) -> tuple[int, int]:
    return await _pragma(connection, "freelist_count"), await _pragma(connection, "auto_vacuum")


async def _file_bytes(connection: AsyncConnection) -> int:
    return await _pragma(connection, "page_count") * await _pragma(connection, "page_size")


async def _free(connection: AsyncConnection, pages: int) -> int:
    """Cut off at most `pages` pages and return how many went."""
    before = await _pragma(connection, "freelist_count")
    # A step of SQLite a page, all of which are taken when rows are fetched, though there are none (see `one_step`).
    await connection.exec_driver_sql(f"PRAGMA incremental_vacuum({pages})")
    return before - await _pragma(connection, "freelist_count")


async def compact_sqlite(url: URL) -> int:
    """Write a SQLite file anew without its gaps, and return by how many bytes it became smaller.

    Nobody can write meanwhile, some seconds a gigabyte; a running daemon's journal waits. Afterwards the file can be cut down in steps.

    Raises:
        StorageError: Somebody else had the file, or the disk is full: the work takes as much room as the file.
    """
    path = Path(url.database or "")

    def compact() -> int:
        before = path.stat().st_size
        connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            message = f"the store cannot be compacted: {exc}"
            raise StorageError(message) from exc
        finally:
            connection.close()
        return max(0, before - path.stat().st_size)

    return await asyncio.to_thread(compact)
