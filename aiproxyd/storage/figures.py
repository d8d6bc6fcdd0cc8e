"""Keeps all that is summed up from interceptions while a transaction changes them: figures by day, and the parts of sessions.

What each of them is, and how it is kept, stands in `rollups` and `session_parts`.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage import rollups, session_parts
from aiproxyd.storage.counted import Counted, counted_of, lock_interceptions, read_counted
from aiproxyd.storage.rows import Row

Touch = Callable[[Collection[str]], Awaitable[None]]
"""Names more interceptions that are about to change."""


class Keeping:
    """What a transaction does to interceptions, as `keeping_figures` gets to know it."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Begin with a transaction that has changed nothing yet."""
        self._connection = connection
        self._touched: set[str] = set()
        self._before: list[Counted] = []
        self._new: dict[str, Row] = {}
        self._new_tokens: Mapping[str, Row] = {}

    async def touch(self, ids: Collection[str]) -> None:
        """Look at interceptions, before they are changed: by SQL, not by `will_insert`. Some may not exist before or after."""
        there = set(ids) - self._touched
        self._touched |= there
        # What this transaction made was nothing before.
        there -= self._new.keys()
        await lock_interceptions(self._connection, there)
        self._before += await read_counted(self._connection, there)

    def will_insert(self, rows: Mapping[str, Row], tokens: Mapping[str, Row]) -> None:
        """Take interceptions as they stand in rows, whose values may change until the transaction ends.

        Reading them back would cost more than inserting them. A row that is not all there is in the store is touched besides.

        Args:
            rows: Of interceptions that are not in the store yet, by id.
            tokens: The only token row of each that has one, by interception.
        """
        self._new |= rows
        self._new_tokens = tokens

    async def changed(self) -> tuple[list[Counted], list[Counted]]:
        """Return what the interceptions were, and what they are now."""
        after = await read_counted(self._connection, self._touched)
        made = (row for id_, row in self._new.items() if id_ not in self._touched)
        return self._before, [*after, *counted_of(made, self._new_tokens)]


@contextlib.asynccontextmanager
async def keeping_figures(connection: AsyncConnection, ids: Collection[str]) -> AsyncIterator[Keeping]:
    """Do to the sums what the body of the `with` does to interceptions.

    Holds PostgreSQL's locks of those interceptions, so that whoever else changes them waits.

    Args:
        connection: In a transaction.
        ids: Interceptions that may change; some may not exist before or after. Of others the body tells what it gets: of those
            that it makes, and of those that only move to another thread or session.
    """
    keeping = Keeping(connection)
    await keeping.touch(ids)
    yield keeping
    before, after = await keeping.changed()
    # First figures and then parts, in every transaction, or two could wait for each other.
    await rollups.add_change(connection, before, after)
    await session_parts.apply_change(connection, before, after)


@contextlib.asynccontextmanager
async def forgetting_records(connection: AsyncConnection, ids: Collection[str]) -> AsyncIterator[None]:
    """Let the sums know that the body of the `with` deletes the interceptions `ids` by age: figures by day stay, sessions go.

    Args:
        connection: In a transaction.
        ids: Interceptions that exist.
    """
    await lock_interceptions(connection, ids)
    records = await read_counted(connection, ids)
    await rollups.forget_records(connection, records)
    yield
    await session_parts.apply_change(connection, records, ())


async def rebuild(connection: AsyncConnection) -> None:
    """Make every sum again from the records. For stores filled from elsewhere."""
    await rollups.rebuild(connection)
    await session_parts.rebuild(connection)
