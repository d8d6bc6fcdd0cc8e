"""A connection to SQLite that asks its thread once for each statement. What it gives is what SQLAlchemy takes of a driver's.

Facts: aiosqlite runs everything in a thread of the connection, and each step is a way there and back: four context switches and two
turns of the loop, 50 µs and more. SQLAlchemy makes a cursor, executes, fetches and closes, each of them a step. A transaction of a
batch took 31 steps and takes 11, and a small one costs 0.72 of what it did.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import aiosqlite

# Of aiosqlite, for iterating over its own cursors, which is not done.
_CHUNK_ROWS = 64


class OneStepConnection(aiosqlite.Connection):
    """A connection whose cursors do all at once."""

    @classmethod
    def make(cls, database: str, **options: Any) -> Self:
        """Return a connection that connects when it is awaited: the `async_creator_fn` of SQLAlchemy's dialect.

        Args:
            database: The file.
            **options: Of `sqlite3.connect`.
        """
        connection = cls(partial(sqlite3.connect, database, **options), _CHUNK_ROWS)
        # As SQLAlchemy has it for connections it makes: one that was forgotten does not keep the process.
        connection._thread.daemon = True
        return connection

    def cursor(self) -> "OneStepCursor":  # type: ignore[override]
        """Return a cursor, without a step."""
        return OneStepCursor(self.ask)

    async def rollback(self) -> None:
        """Roll back; nothing, without a step, after a commit, where the pool asks for it as well."""
        if self._conn.in_transaction:
            await super().rollback()

    async def ask[T](self, call: Callable[..., T], *arguments: object) -> T:
        """Return what `call(connection, *arguments)` returns in the connection's thread."""
        return await self._execute(call, self._conn, *arguments)  # type: ignore[no-any-return,no-untyped-call]


class OneStepCursor:
    """A statement and all its rows. Only what SQLAlchemy's adapter of cursors asks for."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        """Begin with nothing.

        Args:
            ask: `OneStepConnection.ask`.
        """
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1
        self._ask = ask
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, operation: str, parameters: Sequence[Any] = ()) -> Self:
        """Run a statement and keep its rows.

        Raises:
            sqlite3.Error: SQLite refused.
        """
        self._keep(await self._ask(_execute, operation, parameters))
        return self

    async def executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> Self:
        """Run a statement for each of `parameters`; it returns no rows.

        Raises:
            sqlite3.Error: SQLite refused.
        """
        self._keep(await self._ask(_execute_many, operation, parameters))
        return self

    async def fetchall(self) -> list[Any]:
        """Return the rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: SQLite's cursor was closed when its rows were taken."""

    def _keep(self, result: tuple[Any, list[Any], int, int | None]) -> None:
        self.description, self._rows, self.rowcount, self.lastrowid = result


def _execute(
    connection: sqlite3.Connection, operation: str, parameters: Sequence[Any]
) -> tuple[Any, list[Any], int, int | None]:
    with contextlib.closing(connection.execute(operation, parameters)) as cursor:
        return cursor.description, cursor.fetchall(), cursor.rowcount, cursor.lastrowid


def _execute_many(
    connection: sqlite3.Connection, operation: str, parameters: Sequence[Sequence[Any]]
) -> tuple[Any, list[Any], int, int | None]:
    with contextlib.closing(connection.executemany(operation, parameters)) as cursor:
        return cursor.description, [], cursor.rowcount, cursor.lastrowid
