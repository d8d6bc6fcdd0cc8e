"""`aiproxyd prune`: delete what is older than it is to be kept, at once instead of within ten minutes."""

import asyncio
import contextlib
import datetime as dt
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.selecting import time_of
from aiproxyd.commands.table import Output, OutputOption, print_rows

if TYPE_CHECKING:
    from aiproxyd.storage.retention import Pruned, Retention


def prune(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    before: Annotated[
        datetime | None,
        typer.Option(
            "--before",
            parser=time_of,
            metavar="TIME",
            help="Delete the records that began before this RFC 3339 time; `recording.retention` when absent.",
            show_default=False,
        ),
    ] = None,
    content_before: Annotated[
        datetime | None,
        typer.Option(
            "--content-before",
            parser=time_of,
            metavar="TIME",
            help="Delete what those say that began before this time; `recording.content_retention` when absent.",
            show_default=False,
        ),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Write SQLite's file anew afterwards; nobody can write to it meanwhile.")
    ] = False,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Delete records, content and figures that are older than the configuration keeps them.

    A running daemon does that by itself every ten minutes; both may run at once.

    For example:

      aiproxyd prune --dry-run

      aiproxyd prune --before 2026-01-01T00:00:00Z

      aiproxyd prune --content-before 2026-01-01T00:00:00Z --output json
    """
    from aiproxyd.storage.retention import Retention

    settings = read_configuration(config)
    now = dt.datetime.now(dt.UTC)
    retention = Retention.by_age(now, **settings.recording.ages())
    if before is not None:
        retention = replace(retention, records_before=before)
    if content_before is not None:
        retention = replace(retention, content_before=content_before)
    done = asyncio.run(_prune(settings.store_url, retention, now, dry_run=dry_run, compact=compact))
    if output is not Output.TABLE:
        facts = asdict(done)
        print_rows([facts | {"dry_run": dry_run}], list(facts), output=output, empty="")
        return
    verb = "would be deleted" if dry_run else "deleted"
    rows = [
        {"what": "records", "count": done.interceptions, "began_before": _text(retention.records_before)},
        {"what": "contents of records", "count": done.contents, "began_before": _text(retention.content_before)},
        {"what": "unknown events", "count": done.unknown_events, "began_before": _text(retention.records_before)},
        {"what": "figures by day", "count": done.figures, "began_before": _text(retention.figures_before)},
    ]
    print_rows([row | {verb: row["count"]} for row in rows], ["what", verb, "began_before"], output=output, empty="")
    if not dry_run:
        typer.echo(f"{done.freed_bytes / 1e6:,.1f} MB given back; longest transaction {done.longest_seconds * 1000:.0f} ms")


def _text(time: datetime | None) -> str:
    return "(kept)" if time is None else time.isoformat(timespec="seconds").replace("+00:00", "Z")


async def _prune(url: str, retention: "Retention", now: datetime, *, dry_run: bool, compact: bool) -> "Pruned":
    from aiproxyd.storage.engine import url_of
    from aiproxyd.storage.pruning import Pruning, compact_sqlite
    from aiproxyd.storage.retention import would_go
    from aiproxyd.storage.store import Store

    store = await Store.open(url, create=False)
    try:
        if dry_run:
            return await store.read(lambda connection: would_go(connection, retention))
        total = 0
        if sys.stderr.isatty():
            found = await store.read(lambda connection: would_go(connection, retention))
            total = found.interceptions + found.contents
        with _progress(total) as advance:
            done = await Pruning(store, advance=advance).run(retention, now)
        is_file = store.is_sqlite
    finally:
        await store.close()
    if compact and is_file:
        done.freed_bytes += await compact_sqlite(url_of(url))
    return done


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yield what counts records, shown on standard error if there is anything to show."""
    if not total:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("deleting", total=total)
        yield lambda count: progress.advance(task, count)
