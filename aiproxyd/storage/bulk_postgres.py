"""Reads the records of `bulk` from PostgreSQL, by a connection and an event loop of its own. For commands, which have nothing else to
do meanwhile: it blocks.

Facts, measured with a million records:

* The server takes two thirds as long for a page as this process takes to decode and write it. The next page is therefore
  asked for before one is handed out, and the server works on it meanwhile.
* That needs a page in one statement: children come as arrays of rows beside their record. Four more statements with the ids of
  a page cost the server as much, and could be asked only when the page was there.
* Pages are small because of the processor's cache, as SQLite's are.
* A page is a transaction of its own: what is exported may flow into a pipe that nobody empties, and rows that are deleted stay
  on disk as long as a transaction sees them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import asyncpg
from sqlalchemy import ColumnElement, Select, Table, bindparam, func, tuple_
from sqlalchemy.types import NullType, Text

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.bulk import CHILDREN, SELECT, Record, assembled, compiled
from aiproxyd.storage.engine import STATEMENT_TIMEOUT_SECONDS, create_engine, translated, url_of
from aiproxyd.storage.queries import KEYS
from aiproxyd.storage.tables import interceptions

PAGE = 64
"""Records that are read at once."""

_STARTED_AT = KEYS.index("started_at")

_AFTER = ("after_started_at", "after_id")

# While somebody empties the pipe that a page went into, no time counts.
_FOR_EVER = float("inf")


def _as_array(table: Table, query: Select[Any]) -> ColumnElement[Any]:
    """Return the rows of `query` that belong to a record as one column."""
    row = query.with_only_columns(func.row(*query.selected_columns, type_=NullType()))
    return func.array(row.where(table.c.interception_id == interceptions.c.id).scalar_subquery(), type_=NullType())


# What `SELECT` has, and behind it the children.
_WIDTH = len(SELECT.selected_columns)
_OF_CHILDREN = [itemgetter(_WIDTH + place) for place in range(len(CHILDREN))]
_QUERY = SELECT.add_columns(*(_as_array(table, query) for table, query in CHILDREN))


def read_pages(url: str, conditions: Sequence[ColumnElement[Any]]) -> Iterator[list[Record]]:
    """Yield records, newest first, some at a time.

    Args:
        url: Of a store with the newest schema.
        conditions: Of records.

    Raises:
        StorageError: It cannot be read.
    """
    with asyncio.Runner() as runner:
        pages = _pages(url, conditions)
        try:
            while page := runner.run(_next(pages)):
                yield page
        finally:
            runner.run(pages.aclose())


async def _next(pages: AsyncGenerator[list[Record]]) -> list[Record]:
    return await anext(pages, [])


async def _pages(url: str, conditions: Sequence[ColumnElement[Any]]) -> AsyncGenerator[list[Record]]:
    engine = create_engine(url_of(url))
    query = _QUERY.where(*conditions).limit(PAGE)
    columns = interceptions.c
    place = tuple_(bindparam(_AFTER[0], None, columns.started_at.type), bindparam(_AFTER[1], None, Text()))
    first, values = compiled(query, engine.dialect)
    behind, behind_values = compiled(query.where(tuple_(columns.started_at, columns.id) < place), engine.dialect)
    try:
        with _sentences():
            async with engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                rows: Sequence[Any] = await driver.fetch(first, *values.values())
                statement = await driver.prepare(behind)
                while len(rows) == PAGE:
                    behind_values |= dict(zip(_AFTER, (rows[-1][_STARTED_AT], rows[-1][0]), strict=True))
                    async with _begun(statement.fetch(*behind_values.values(), timeout=_FOR_EVER)) as reading:
                        yield _records(rows)
                        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
                            rows = await reading
                if rows:
                    yield _records(rows)
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def _begun(reading: Coroutine[Any, Any, Sequence[Any]]) -> AsyncIterator[asyncio.Task[Sequence[Any]]]:
    """Yield what is under way, and stop it if nobody waits for it any more."""
    task = asyncio.ensure_future(reading)
    # Sent before the loop stands still.
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def _records(rows: Sequence[Any]) -> list[Record]:
    return assembled([row[:_WIDTH] for row in rows], [chain.from_iterable(map(of, rows)) for of in _OF_CHILDREN])


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    with translated():
        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            # Behind the first line there are values of rows.
            message = f"the store refused: {str(exc).partition('\n')[0]}"
            raise StorageError(message) from exc
