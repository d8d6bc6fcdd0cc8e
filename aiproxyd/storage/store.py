"""The store: the one place that knows the database. What it raises is StorageError; whoever feeds it waits and tries again.

A batch of journal lines and the positions behind them are one transaction, so a line is applied exactly once however often
anything restarts. A line that the database cannot take is left out, counted and logged; it must not hold up the others.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import structlog
from sqlalchemy import bindparam, case, delete, exists, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiproxyd.exceptions import StorageError
from aiproxyd.model.observation import Observation
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.model.principal import Principal
from aiproxyd.pricing import Pricer
from aiproxyd.storage import schema, users
from aiproxyd.storage.costs import Repricing, reprice_page
from aiproxyd.storage.engine import (
    READ_ONLY,
    create_engine,
    in_pieces,
    is_data_error,
    prepare_sqlite_file,
    sqlite_file,
    translated,
    url_of,
)
from aiproxyd.storage.figures import keeping_figures, rebuild
from aiproxyd.storage.ingest import ingest, save_positions
from aiproxyd.storage.last_write import written_at
from aiproxyd.storage.queries import InterceptionFilter, list_interceptions, show_interception
from aiproxyd.storage.rows import Changes, Row, time_of
from aiproxyd.storage.tables import interceptions, journal_positions, token_usages, unknown_events

_log = structlog.get_logger(__name__)

Lines = Sequence[tuple[str, Observation]]
"""Worker id and observation, in order within each worker."""

_POSITIONS = select(journal_positions.c.segment, journal_positions.c.position).where(
    journal_positions.c.daemon_id == bindparam("daemon")
)

# About 200 bytes each. Beyond it all are forgotten, which costs one needless write a user.
_MAX_SEEN_USERS = 10_000

# Rows of each index that SQLite looks at to know how it is filled.
_ANALYSED_ROWS = 1000


class Store:
    """An open database. Made by `open`."""

    def __init__(self, engine: AsyncEngine, daemon_id: str, pricer: Pricer | None = None) -> None:
        self.rejected_lines = 0
        """Lines that the database could not take, since this store was opened."""
        self.orphaned_lines = 0
        """Lines of interceptions whose beginning was never seen, since this store was opened."""
        self._engine = engine
        self._reading = engine.execution_options(**{READ_ONLY: True})
        self._daemon_id = daemon_id
        self._pricer = pricer
        self._seen_users: dict[str, Row] = {}
        self._writes: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, url: str, *, daemon_id: str = "", create: bool = True, pricer: Pricer | None = None) -> Self:
        """Return the store at `url`, brought to the newest schema.

        Args:
            url: `sqlite+aiosqlite:///PATH`, `postgresql+asyncpg://…`, or the same without a driver.
            daemon_id: Whose journal positions are meant, where several daemons share a database.
            create: Whether a missing file is made and an old schema brought up to date; without it either is an error.
            pricer: Knows what responses cost; without one they are stored without a cost.

        Raises:
            StorageError: The database cannot be reached or was made by a newer program.
        """
        address = url_of(url)
        is_sqlite = address.get_backend_name() == "sqlite"
        if is_sqlite:
            prepare_sqlite_file(address, create=create)
        store = cls(create_engine(address), daemon_id, pricer)
        try:
            with translated():
                if create:
                    async with store._engine.begin() as connection:
                        await connection.run_sync(schema.upgrade)
                else:
                    async with store._reading.connect() as connection:
                        await connection.run_sync(schema.check)
        except BaseException:
            await store.close()
            raise
        return store

    @staticmethod
    def file_of(url: str) -> Path | None:
        """Return the file of a SQLite URL; None for a database on a server.

        Raises:
            StorageError: It names no database that can be used.
        """
        address = url_of(url)
        return sqlite_file(address) if address.get_backend_name() == "sqlite" else None

    @classmethod
    async def probe(cls, url: str) -> bool:
        """Return whether the store at `url` has the newest schema; False where a start would bring it there. Changes nothing.

        Raises:
            StorageError: The database cannot be reached, was made by a newer program or is not a store.
        """
        store = cls(create_engine(url_of(url)), "", None)
        try:
            with translated():
                async with store._reading.connect() as connection:
                    return await connection.run_sync(schema.is_current)
        finally:
            await store.close()

    async def close(self) -> None:
        """Let writes that are under way end, and close every connection."""
        await self._settle()
        await self._engine.dispose()

    async def refresh_statistics(self) -> None:
        """Let SQLite know how its columns are filled, without which it takes the wrong index; PostgreSQL knows by itself.

        Raises:
            StorageError: It knows what it knew.
        """
        if not self.is_sqlite:
            return

        async def analyse(connection: AsyncConnection) -> None:
            # A sample of each index: milliseconds, whatever the size.
            await connection.exec_driver_sql(f"PRAGMA analysis_limit={_ANALYSED_ROWS}")
            await connection.exec_driver_sql("ANALYZE")

        await self._write(analyse)

    async def ping(self) -> None:
        """Make sure that the database answers.

        Raises:
            StorageError: It does not.
        """
        await self.read(lambda connection: connection.execute(text("SELECT 1")))

    async def apply(self, lines: Lines, positions: Mapping[str, int], *, starts: Mapping[str, int] | None = None) -> None:
        """Write what `lines` say and how far that is, both or neither.

        Does nothing when the store stands at `positions` already: it did commit, and the answer was lost.

        Args:
            lines: Those of a batch.
            positions: By segment, where the batch ends.
            starts: By segment, where it begins. When the store stands elsewhere the batch is refused; read again from
                `positions()`.

        Raises:
            StorageError: Nothing was written, or it is not known whether it was.
        """
        await self._whole(self._apply(lines, positions, starts))

    async def _apply(self, lines: Lines, positions: Mapping[str, int], starts: Mapping[str, int] | None) -> None:
        with translated():
            try:
                changes = await self._transact(lines, positions, starts, isolated=False)
            except Exception as exc:  # narrowed by what it is, because each driver has its own
                if not is_data_error(exc):
                    raise
                changes = await self._transact(lines, positions, starts, isolated=True)
        for part in changes:
            self.orphaned_lines += part.orphans
            self._seen_users |= part.users
        if len(self._seen_users) > _MAX_SEEN_USERS:
            self._seen_users.clear()

    async def _transact(
        self, lines: Lines, positions: Mapping[str, int], starts: Mapping[str, int] | None, *, isolated: bool
    ) -> list[Changes]:
        async with self._engine.begin() as connection:
            if await self._is_applied(connection, positions, starts):
                return []
            rejected: list[Exception] = []
            if isolated:
                changes = await self._ingest_isolated(connection, lines, rejected)
            else:
                changes = [await ingest(connection, lines, self._seen_users, self._pricer)]
            await save_positions(connection, self._daemon_id, dict(positions))
        self.rejected_lines += len(rejected)
        return changes

    async def _is_applied(
        self, connection: AsyncConnection, positions: Mapping[str, int], starts: Mapping[str, int] | None
    ) -> bool:
        stored = await self._positions(connection)
        if positions and all(stored.get(segment, 0) >= position for segment, position in positions.items()):
            return True
        for segment, start in (starts or {}).items():
            if stored.get(segment, 0) != start:
                message = (
                    f"the batch begins at {start} of {segment} and the store stands at {stored.get(segment, 0)}; read again"
                )
                raise StorageError(message)
        return False

    async def _ingest_isolated(self, connection: AsyncConnection, lines: Lines, rejected: list[Exception]) -> list[Changes]:
        """Write `lines` but for those the database cannot take, found by halving."""
        try:
            async with connection.begin_nested():
                return [await ingest(connection, lines, self._seen_users, self._pricer)]
        except Exception as exc:  # as in `apply`
            if not is_data_error(exc):
                raise
            if len(lines) == 1:
                worker_id, observation = lines[0]
                rejected.append(exc)
                # The values stay out of the log: they may be a prompt.
                _log.error("record left out", worker_id=worker_id, kind=type(observation).__name__, error=type(exc).__name__)
                return []
        half = len(lines) // 2
        first = await self._ingest_isolated(connection, lines[:half], rejected)
        return first + await self._ingest_isolated(connection, lines[half:], rejected)

    async def end_interrupted(self, worker_id: str, at: float) -> int:
        """End what a dead worker left open, all of whose lines are applied; return how many there were.

        Args:
            worker_id: The worker's.
            at: Unix time in seconds of the end.

        Raises:
            StorageError: Nothing was written.
        """
        columns = interceptions.c
        reported = exists(select(token_usages.c.interception_id).where(token_usages.c.interception_id == columns.id))
        statement = (
            update(interceptions)
            .where(columns.worker_id == worker_id, columns.ended_at.is_(None))
            .values(
                ended_at=time_of(at),
                outcome=str(Outcome.INTERRUPTED),
                usage_source=case((reported, str(UsageSource.REPORTED)), else_=str(UsageSource.NONE)),
            )
        )
        still_open = select(columns.id).where(columns.worker_id == worker_id, columns.ended_at.is_(None))

        async def end(connection: AsyncConnection) -> int:
            ids = list((await connection.execute(still_open)).scalars())
            async with keeping_figures(connection, ids):
                return int((await connection.execute(statement)).rowcount)

        return await self._write(end)

    async def rebuild_figures(self) -> None:
        """Sum up every record again, after a store was filled by other ways than ingest.

        Raises:
            StorageError: Nothing was written.
        """
        await self._write(rebuild)

    async def reprice(self, pricer: Pricer, since: datetime, *, dry_run: bool) -> Repricing:
        """Price what was stored since a time again, and keep the amounts before in the rows' history.

        Each page of rows is a transaction of its own; interrupted, it is begun again and finds the rest.

        Args:
            pricer: Knows the prices of any day.
            since: Rows of responses from this time on.
            dry_run: Whether nothing is written.

        Raises:
            StorageError: The database refused; the pages before are written.
        """
        report = Repricing()
        at = datetime.now(UTC)
        while True:
            with translated():
                async with self._reading.connect() if dry_run else self._engine.begin() as connection:
                    await reprice_page(connection, pricer, since, report, at=at, dry_run=dry_run)
            if report.last is None:
                return report

    async def positions(self) -> dict[str, int]:
        """Return how far the journal is applied, by segment.

        Raises:
            StorageError: The database cannot be read.
        """
        # One that nobody waits for any more may be about to move them.
        await self._settle()
        return await self.read(self._positions)

    async def _positions(self, connection: AsyncConnection) -> dict[str, int]:
        # All of them, which are few: what was consumed is forgotten.
        return {row.segment: row.position for row in await connection.execute(_POSITIONS, {"daemon": self._daemon_id})}

    async def adopt_positions(self, segments: Collection[str]) -> None:
        """Take over the positions of segments that are in this daemon's journal, whoever saved them: an earlier version, or this
        daemon under another id.

        Raises:
            StorageError: Nothing was written.
        """
        columns = journal_positions.c

        async def adopt(connection: AsyncConnection) -> None:
            for piece in in_pieces(segments):
                await connection.execute(
                    update(journal_positions)
                    .where(columns.segment.in_(piece), columns.daemon_id != self._daemon_id)
                    .values(daemon_id=self._daemon_id)
                )

        await self._write(adopt)

    async def forget_positions(self, segments: Collection[str]) -> None:
        """Delete the positions of segments that were removed.

        Raises:
            StorageError: They remain, which does no harm.
        """
        columns = journal_positions.c

        async def forget(connection: AsyncConnection) -> None:
            for piece in in_pieces(segments):
                await connection.execute(
                    delete(journal_positions).where(columns.daemon_id == self._daemon_id, columns.segment.in_(piece))
                )

        await self._write(forget)

    async def read[T](self, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return what `query` returns; it gets a connection whose transaction only reads.

        Raises:
            StorageError: The database cannot be read.
        """
        with translated():
            async with self._reading.connect() as connection:
                return await query(connection)

    async def _write[T](self, change: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def transact() -> T:
            with translated():
                async with self._engine.begin() as connection:
                    return await change(connection)

        return await self._whole(transact())

    async def write_timed(self, change: Callable[[AsyncConnection], Awaitable[int]]) -> tuple[int, float]:
        """Return what `change` returns, and for how many seconds it kept others from writing: from when it had SQLite's lock until
        after the commit.

        Raises:
            StorageError: Nothing was written.
        """

        async def transact() -> tuple[int, float]:
            with translated():
                async with self._engine.begin() as connection:
                    began = time.monotonic()
                    count = await change(connection)
                return count, time.monotonic() - began

        return await self._whole(transact())

    async def checkpoint(self) -> None:
        """Let SQLite move what it can from its WAL into the database, so that a file that became smaller is smaller on disk.

        Raises:
            StorageError: It stays as it is until the next commit.
        """

        async def move(connection: AsyncConnection) -> None:
            # Not within a transaction, and without waiting for readers.
            await connection.exec_driver_sql("COMMIT")
            await connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            await connection.exec_driver_sql("BEGIN")

        await self.read(move)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of ours."""
        return self._engine.dialect.name == "sqlite"

    def written_at(self) -> object | None:
        """Return what is another value after any later write, by whatever process; None where only a question can tell."""
        return written_at(sqlite_file(self._engine.url)) if self.is_sqlite else None

    async def _whole[T](self, write: Coroutine[Any, Any, T]) -> T:
        """Return what `write` returns, and do not let it be cut.

        Who is cancelled meanwhile stops waiting, and the write goes on to its end, for which `positions` and `close` wait: of one
        that was cut nobody would know whether it was committed.
        """
        task = asyncio.ensure_future(write)
        self._writes.add(task)
        task.add_done_callback(self._write_ended)
        return await asyncio.shield(task)

    def _write_ended(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # seen, for the case that nobody waits for it any more

    async def _settle(self) -> None:
        """Wait for the writes that are under way."""
        while self._writes:
            await asyncio.wait(self._writes)

    async def interceptions(self, filter_: InterceptionFilter) -> list[dict[str, Any]]:
        """Return the interceptions that `filter_` lets through, newest first, in the shape of DESIGN §7.

        Raises:
            StorageError: The database cannot be read, or `after_id` is no interception.
        """
        return await self.read(lambda connection: list_interceptions(connection, filter_))

    async def interception(self, id_: str) -> dict[str, Any] | None:
        """Return one interception, or None when there is none of this id.

        Raises:
            StorageError: The database cannot be read.
        """
        return await self.read(lambda connection: show_interception(connection, id_))

    async def unknown_events(self) -> list[dict[str, Any]]:
        """Return what parsers did not know, the newest first.

        Raises:
            StorageError: The database cannot be read.
        """
        columns = unknown_events.c
        query = select(unknown_events).order_by(columns.last_seen_at.desc(), columns.provider, columns.api, columns.kind)

        async def rows(connection: AsyncConnection) -> list[dict[str, Any]]:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

        return await self.read(rows)

    async def add_user(self, name: str, groups: Iterable[str] = ()) -> str:
        """Give a user a token and return it; only its SHA-256 is kept.

        Raises:
            StorageError: The user has a token, or nothing could be written.
        """
        return await self._write(lambda connection: users.add_user(connection, name, groups, datetime.now(UTC)))

    async def list_users(self) -> list[users.StoredUser]:
        """Return the users who have or had a token of the store, by name.

        Raises:
            StorageError: The database cannot be read.
        """
        return await self.read(users.list_users)

    async def revoke_user(self, name: str) -> bool:
        """Make a user's token worthless; return whether there was one.

        Raises:
            StorageError: Nothing was written.
        """
        return await self._write(lambda connection: users.revoke_user(connection, name, datetime.now(UTC)))

    async def find_principal(self, token_sha256: str) -> Principal | None:
        """Return who has the token with this SHA-256 (lower-case hex), or None when nobody has.

        Raises:
            StorageError: It could not be found out.
        """
        return await self.read(lambda connection: users.find_principal(connection, token_sha256))
