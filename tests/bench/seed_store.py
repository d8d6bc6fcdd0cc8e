"""Fills a store with made-up interceptions: `make seed-store`, or `python -m tests.bench.seed_store --url URL --count 1000000 --days 60`.

Rows go in by the fastest way each database has: secondary indexes are made after the rows, SQLite is not synced, PostgreSQL gets
COPY. What stands in the store afterwards is what migrations, ingest and rollups would have made; only the way there is shorter.
"""

import argparse
import asyncio
import datetime as dt
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.schema import CreateIndex

from aiproxyd.storage.engine import url_of
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import interceptions, tool_usages
from tests.bench.store_rows import COLUMNS, pages, user_rows

DEFAULT_COUNT = 1_000_000
DEFAULT_DAYS = 60.0

_TIMES = {
    name: tuple(place for place, column in enumerate(columns) if column.endswith("_at")) for name, columns in COLUMNS.items()
}

Advance = Callable[[int], None]


async def seed(
    url: str, count: int, days: float, *, until: dt.datetime | None = None, advance: Advance = lambda _: None
) -> None:
    """Make the store at `url` and fill it.

    Args:
        url: Of a database that is empty or a store; rows are added to what is there.
        count: How many interceptions.
        days: Over how many days.
        until: When the newest starts; the present when absent.
        advance: Gets the number of interceptions after each page.
    """
    await (await Store.open(url)).close()
    address = url_of(url)
    at = until or dt.datetime.now(dt.UTC)
    if address.get_backend_name() == "sqlite":
        await asyncio.to_thread(_fill_sqlite, str(address.database), count, days, at, advance)
    else:
        await _fill_postgres(address, count, days, at, advance)
    store = await Store.open(url)
    try:
        await store.rebuild_figures()
        await store.refresh_statistics()
    finally:
        await store.close()


def _indexes(dialect: Dialect) -> tuple[list[str], list[str]]:
    """Return the statements that drop and make the secondary indexes of the large tables."""
    indexes = [
        index for table in (interceptions, tool_usages) for index in sorted(table.indexes, key=lambda each: str(each.name))
    ]
    return (
        [f"DROP INDEX {index.name}" for index in indexes],
        [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes],
    )


def _fill_sqlite(path: str, count: int, days: float, until: dt.datetime, advance: Advance) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    drop, make = _indexes(sqlite.dialect())
    try:
        connection.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-1500000; PRAGMA temp_store=MEMORY; BEGIN;")
        for statement in drop:
            connection.execute(statement)
        users = [_as_text("users", row) for row in user_rows(until)]
        connection.executemany(_insert("users"), users)
        for page in pages(count, days, until):
            for name, rows in page.items():
                connection.executemany(_insert(name), [_as_text(name, row) for row in rows])
            advance(len(page["interceptions"]))
        for statement in make:
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _insert(table: str) -> str:
    names = ", ".join(f'"{name}"' for name in COLUMNS[table])
    marks = ", ".join("?" * len(COLUMNS[table]))
    return f"INSERT {'OR IGNORE ' if table == 'users' else ''}INTO {table} ({names}) VALUES ({marks})"


def _as_text(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row with times as SQLite has them."""
    values = list(row)
    for place in _TIMES[table]:
        if values[place] is not None:
            values[place] = values[place].replace(tzinfo=None).isoformat(" ", "microseconds")
    return tuple(values)


async def _fill_postgres(address: URL, count: int, days: float, until: dt.datetime, advance: Advance) -> None:
    import asyncpg

    drop, make = _indexes(postgresql.dialect())
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        async with connection.transaction():
            # The rows are whole; checking each reference would double the time. Needs a superuser, and goes without.
            if await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
                await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
            for statement in drop:
                await connection.execute(statement)
            names = ", ".join(f'"{name}"' for name in COLUMNS["users"])
            marks = ", ".join(f"${place}" for place in range(1, len(COLUMNS["users"]) + 1))
            await connection.executemany(
                f"INSERT INTO users ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING", user_rows(until)
            )
            for page in pages(count, days, until):
                for name, rows in page.items():
                    if rows:
                        await connection.copy_records_to_table(name, records=rows, columns=COLUMNS[name])
                advance(len(page["interceptions"]))
            for statement in make:
                await connection.execute(statement)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def seed_with_progress(url: str, count: int, days: float) -> float:
    """Fill the store at `url`, say on standard error how far that is, and return the seconds it took."""
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("interceptions", total=count)
        asyncio.run(seed(url, count, days, advance=lambda made: progress.advance(task, made)))
    return time.monotonic() - started


def main() -> None:
    """Fill the store that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="sqlite:///bench-results/store.sqlite3", help="the store; an empty one is made")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT, help="interceptions")
    parser.add_argument("--days", type=float, default=DEFAULT_DAYS, help="over which they spread, up to now")
    arguments = parser.parse_args()
    Path("bench-results").mkdir(exist_ok=True)
    seconds = seed_with_progress(arguments.url, arguments.count, arguments.days)
    print(f"{arguments.count:,} interceptions in {seconds:.0f} s")


if __name__ == "__main__":
    main()
