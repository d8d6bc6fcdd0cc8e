"""Measures a filled store: `make bench-store`, or `python -m tests.bench.store --url URL`.

Without a URL it fills a SQLite file and a PostgreSQL server of its own (as the tests start one) with `--count` interceptions and
measures both. Each call is made `--rounds` times with other values of its filters. What is measured is what an answer of the API
needs of the store: a list is a page and its count. Before each kind of call the database's files are read once, so that the machine
has them in memory: what is measured is the store, not the disk. The tables go between two marks of docs/performance.md; what is said about
them stands outside.

Ingest takes what workers write: journals on disk, read by the daemon's own reader and applied in its own transactions, rollups
and prices included. Export is the command's own reader and writer, into a file that goes nowhere.
"""

import argparse
import asyncio
import datetime as dt
import os
import platform
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select

from aiproxyd.api.counts import Counts
from aiproxyd.api.page import overview
from aiproxyd.commands.export import Format, destination, without_collector
from aiproxyd.commands.records import LocalRecords
from aiproxyd.journal.follower import Follower
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.storage import listing, session_places, sessions, usage_report
from aiproxyd.storage.engine import url_of
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import interceptions
from aiproxyd.storage.usage_report import Dimension
from aiproxyd.telemetry.prices import PriceBook
from tests.bench.seed_store import DEFAULT_COUNT, DEFAULT_DAYS, seed_with_progress
from tests.support.observations import life, new_id, of_worker
from tests.support.postgres import running_postgres

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- bench-store: begin -->", "<!-- bench-store: end -->"

INGESTED = 20_000
EXPORTED = 200_000

type Call = Callable[[Store, random.Random], Awaitable[Any]]


class Timing(NamedTuple):
    """How long calls took, in milliseconds."""

    p50: float
    p95: float
    cpu_p50: float
    cpu_p95: float
    """Of this process, in which SQLite works and PostgreSQL does not."""


class Result(NamedTuple):
    """All figures of one store."""

    database: str
    rows: int
    calls: dict[str, Timing]
    rates: dict[str, tuple[float, float]]
    """Units a second, by the clock and by this process's CPU time."""
    memory_mb: dict[str, float]


class Values(NamedTuple):
    """What filters can be set to."""

    users: Sequence[str]
    models: Sequence[str]
    clients: Sequence[str]
    providers: Sequence[str]
    newest: dt.datetime


def calls(values: Values) -> dict[str, Call]:
    """Return what is measured, by what it is called."""

    def some_day(chance: random.Random) -> dt.datetime:
        return values.newest - dt.timedelta(days=chance.uniform(1, 55))

    def interceptions_of(select: Callable[[random.Random], Selection], **page: Any) -> Call:
        async def call(store: Store, chance: random.Random) -> Any:
            selection = select(chance)
            await store.read(lambda c: listing.list_page(c, selection, **page))
            await store.read(lambda c: listing.count_interceptions(c, selection))

        return call

    # As the API has it: a count that took long is told again for a while.
    counts = Counts()

    def sessions_of(select: Callable[[random.Random], Selection], **page: Any) -> Call:
        async def call(store: Store, chance: random.Random) -> Any:
            selection = select(chance)
            await store.read(lambda c: sessions.list_sessions(c, selection, **page))
            await counts.count(selection, lambda: store.read(lambda c: session_places.count_sessions(c, selection)))

        return call

    async def next_page(store: Store, chance: random.Random) -> Any:
        at = some_day(chance)
        (first,) = await store.read(lambda c: listing.list_page(c, Selection(started_before=at), limit=1))
        await store.read(lambda c: listing.list_page(c, Selection(), after_id=first["id"]))

    async def all_sessions(store: Store, chance: random.Random) -> Any:
        await store.read(lambda c: session_places.count_sessions(c, Selection()))

    async def one_session(store: Store, chance: random.Random) -> Any:
        at = some_day(chance)
        (first,) = await store.read(lambda c: listing.list_page(c, Selection(started_before=at), limit=1))
        assert await store.read(lambda c: sessions.show_session(c, first["session_id"]))

    async def next_sessions(store: Store, chance: random.Random) -> Any:
        at = some_day(chance)
        (first,) = await store.read(lambda c: listing.list_page(c, Selection(started_before=at), limit=1))
        place = await store.read(lambda c: sessions.place_of(c, Selection(), first["session_id"]))
        await store.read(lambda c: sessions.list_sessions(c, Selection(), after=place))

    async def words(store: Store, chance: random.Random) -> Any:
        await store.read(lambda c: listing.values_of(c, chance.choice(["models", "clients", "providers"])))

    def usage(days: int, dimensions: Sequence[Dimension]) -> Call:
        async def call(store: Store, chance: random.Random) -> Any:
            midnight = some_day(chance).replace(hour=0, minute=0, second=0, microsecond=0)
            selection = Selection(started_after=midnight - dt.timedelta(days=days), started_before=midnight)
            await store.read(lambda c: usage_report.report_of(c, selection, dimensions, limit=1000))

        return call

    async def usage_between(store: Store, chance: random.Random) -> Any:
        at = some_day(chance)
        selection = Selection(started_after=at - dt.timedelta(days=30), started_before=at)
        await store.read(lambda c: usage_report.usage_of(c, selection, [Dimension.USER, Dimension.MODEL]))

    def show_overview(days: int) -> Call:
        async def call(store: Store, chance: random.Random) -> Any:
            await store.read(lambda c: overview.read_overview(c, values.newest.date(), days))

        return call

    return {
        "interceptions, newest": interceptions_of(lambda _: Selection()),
        "interceptions, the page behind some id": next_page,
        "interceptions of a user": interceptions_of(lambda c: Selection(initiator=c.choice(values.users))),
        "interceptions of a model": interceptions_of(lambda c: Selection(model=c.choice(values.models))),
        "interceptions of a client": interceptions_of(lambda c: Selection(client=c.choice(values.clients))),
        "interceptions of a provider": interceptions_of(lambda c: Selection(provider=c.choice(values.providers))),
        "interceptions of a user and a model, a week": interceptions_of(
            lambda c: Selection(
                initiator=c.choice(values.users),
                model=c.choice(values.models),
                started_after=(at := some_day(c)) - dt.timedelta(days=7),
                started_before=at,
            )
        ),
        "interceptions that failed upstream": interceptions_of(lambda _: Selection(outcome="upstream_error")),
        "sessions, newest": sessions_of(lambda _: Selection()),
        "sessions behind some session": next_sessions,
        "sessions of a user": sessions_of(lambda c: Selection(initiator=c.choice(values.users))),
        "sessions of a model": sessions_of(lambda c: Selection(model=c.choice(values.models))),
        "sessions of a client, a week": sessions_of(
            lambda c: Selection(
                client=c.choice(values.clients),
                started_after=(at := some_day(c)) - dt.timedelta(days=7),
                started_before=at,
            )
        ),
        "one session with its threads": one_session,
        "how many sessions there are, when nobody asked before": all_sessions,
        "models, clients or providers": words,
        "usage of a month by user": usage(30, [Dimension.USER]),
        "usage of a month by day, user, model": usage(30, [Dimension.DAY, Dimension.USER, Dimension.MODEL]),
        "usage of a month by every dimension": usage(30, list(Dimension)),
        "usage of 30 days between any two times": usage_between,
        "overview of 7 days": show_overview(7),
        "overview of 90 days": show_overview(90),
    }


async def measure_calls(url: str, rounds: int, only: str) -> tuple[int, dict[str, Timing]]:
    """Return how many interceptions there are and the timing of each call."""
    store = await Store.open(url, create=False)
    try:
        values = await store.read(_values)
        files = await _files_of(store, url)
        timings = {}
        for name, call in calls(values).items():
            if only not in name:
                continue
            clock, cpu = [], []
            chance = random.Random(name)
            for file in files:
                _read_through(file)
            for number in range(rounds + 2):
                began, began_cpu = time.perf_counter(), time.process_time()
                await call(store, chance)
                # The first ones compile statements and fill caches.
                if number >= 2:
                    clock.append((time.perf_counter() - began) * 1000)
                    cpu.append((time.process_time() - began_cpu) * 1000)
            timings[name] = Timing(*_percentiles(clock), *_percentiles(cpu))
            print(f"  {name}: {' / '.join(f'{value:.1f}' for value in timings[name])} ms", flush=True)
        rows = await store.read(lambda c: listing.count_interceptions(c, Selection()))
        return rows, timings
    finally:
        await store.close()


async def _files_of(store: Store, url: str) -> list[Path]:
    """Return the files of a store's database, as far as this user may read them here."""
    file = Store.file_of(url)
    if file is not None:
        return [file]
    base = await store.read(
        lambda c: c.exec_driver_sql(
            "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database WHERE datname = current_database()"
        )
    )
    folder = Path(base.scalar_one())
    return [file for file in folder.glob("*") if file.is_file()] if os.access(folder, os.R_OK | os.X_OK) else []


def _read_through(file: Path) -> None:
    try:
        with file.open("rb", buffering=0) as opened:
            while opened.read(4 << 20):
                pass
    except FileNotFoundError:
        pass  # a table that was made anew meanwhile


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]


async def _values(connection: Any) -> Values:
    columns = interceptions.c
    found = [
        list((await connection.execute(select(column).distinct())).scalars())
        for column in (columns.initiator_id, columns.model, columns.client, columns.provider)
    ]
    newest = (await connection.execute(select(func.max(columns.started_at)))).scalar_one()
    return Values(*found, newest)


async def measure_ingest(url: str, count: int) -> tuple[float, float]:
    """Return interceptions a second, by the clock and by CPU time, from journals on disk into the store."""
    with tempfile.TemporaryDirectory() as folder:
        writer = JournalWriter(Path(folder), f"bench-{new_id()}")
        at = dt.datetime.now(dt.UTC).timestamp() - count
        call = ""
        for number in range(count):
            answers, call = (call if number % 12 else ""), f"toolu_{new_id()}"
            for _, observation in of_worker(
                "", *life(new_id(), at=at + number, user=f"user-{number // 12 % 40}", answers=answers, calls=call)
            ):
                writer.append(observation)
            if number % 10 == 0:
                writer.flush()
        writer.flush()
        writer.close()
        store = await Store.open(url, daemon_id=new_id(), pricer=PriceBook())
        follower = Follower(Path(folder), {})
        began, began_cpu = time.perf_counter(), time.process_time()
        while batch := follower.read():
            await store.apply(batch.lines, batch.positions, starts=batch.starts)
            follower.mark_applied(batch.positions)
        taken = time.perf_counter() - began, time.process_time() - began_cpu
        await store.close()
    return count / taken[0], count / taken[1]


def measure_export(url: str, count: int, chosen: Format) -> tuple[tuple[float, float], float]:
    """Return rows a second by the clock and by CPU time, and by how many MB the process grew between the first tenth and the end."""
    records = LocalRecords(url)
    written = 0
    early = 0
    with tempfile.TemporaryDirectory() as folder:
        began, began_cpu = time.perf_counter(), time.process_time()
        with without_collector(), destination(chosen, Path(folder) / f"all.{chosen}") as write:
            for page in records.bulk(Selection()):
                write(page)
                written += len(page)
                if not early and written >= count // 10:
                    early = _memory_kb()
                if written >= count:
                    break
        taken = time.perf_counter() - began, time.process_time() - began_cpu
        grown = _memory_kb() - early
    records.close()
    return (written / taken[0], written / taken[1]), grown / 1024


def _memory_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(url: str, rounds: int, only: str) -> Result:
    """Return every figure of the store at `url`."""
    name = url_of(url).get_backend_name()
    print(f"{name}:", flush=True)
    rows, timings = asyncio.run(measure_calls(url, rounds, only))
    rates: dict[str, tuple[float, float]] = {}
    memory = {}
    if not only or only == "export":
        for chosen in (Format.JSONL, Format.CSV):
            rate, grown = measure_export(url, min(rows, EXPORTED), chosen)
            rates[f"export to {chosen}, rows"] = rate
            memory[f"export to {chosen}"] = grown
    if not only or only == "ingest":
        rates["ingest, interceptions"] = asyncio.run(measure_ingest(url, INGESTED))
    for what, (clock, cpu) in rates.items():
        print(f"  {what}: {clock:,.0f} a second, {cpu:,.0f} a CPU second", flush=True)
    return Result(name, rows, timings, rates, memory)


def report(results: Sequence[Result], rounds: int) -> str:
    """Return the figures as Markdown."""
    cores = len(os.sched_getaffinity(0))
    software = f"Linux {platform.release()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    stores = "; ".join(f"{result.database} with {result.rows:,} interceptions" for result in results)
    # Addresses are of this machine, and may hold a password.
    named = [word for word in sys.argv[1:] if "://" not in word and word != "--url"]
    command = " ".join(["python -m tests.bench.store", *named])
    lines = [
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, {cores} cores, {software}: `{command}`, {rounds} calls each. {stores}.",
        "",
        (
            "Milliseconds of a call: p50 / p95 by the clock, and in brackets by the CPU time of the asking process, which has all of "
            "SQLite's work and nothing of PostgreSQL's."
        ),
        "",
        "| call | " + " | ".join(result.database for result in results) + " |",
        "|---|" + "---|" * len(results),
    ]
    for name in results[0].calls:
        timings = [result.calls[name] for result in results]
        cells = [f"{t.p50:.1f} / {t.p95:.1f} ({t.cpu_p50:.1f} / {t.cpu_p95:.1f})" for t in timings]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "A second by the clock, and in brackets a CPU second of this process.", ""]
    lines += ["| | " + " | ".join(result.database for result in results) + " |", "|---|" + "---|" * len(results)]
    for name in results[0].rates:
        cells = [f"{clock:,.0f} ({cpu:,.0f})" for clock, cpu in (result.rates[name] for result in results)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name in results[0].memory_mb:
        cells = [f"{result.memory_mb[name]:.1f} MB" for result in results]
        lines.append(f"| growth of memory from the first tenth of an {name} to its end | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_into(page: Path, text: str) -> None:
    """Put `text` between the marks of `page`."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    """Measure the stores that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--url", action="append", default=[], help="a filled store, may be given more than once; ingest adds to it"
    )
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT, help="interceptions of the stores that are made")
    parser.add_argument("--days", type=float, default=DEFAULT_DAYS)
    parser.add_argument("--rounds", type=int, default=40, help="calls of each kind")
    parser.add_argument("--only", default="", help="calls with this in their name, or `ingest`, or `export`")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/performance.md as it is")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        urls = list(arguments.url)
        if not urls:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            urls = [f"sqlite:///{folder}/store.sqlite3", stack.enter_context(running_postgres()).new_database()]
            for url in urls:
                seconds = seed_with_progress(url, arguments.count, arguments.days)
                print(
                    f"{url_of(url).get_backend_name()}: {arguments.count:,} interceptions made in {seconds:.0f} s", flush=True
                )
        results = [measure(url, arguments.rounds, arguments.only) for url in urls]
    text = report(results, arguments.rounds)
    print("\n" + text)
    if not arguments.no_docs and not arguments.only:
        write_into(ROOT / "docs" / "performance.md", text)


if __name__ == "__main__":
    main()
