"""`aiproxyd interceptions export`: every record of a time, whole as JSON lines or flat as CSV or Parquet, with flat memory."""

import contextlib
import csv
import enum
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import msgspec
import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.records import PAGE, Records, open_records
from aiproxyd.commands.selecting import (
    AdminTokenOption,
    ClientOption,
    InitiatorOption,
    ModelOption,
    ProviderOption,
    StartedAfterOption,
    StartedBeforeOption,
    UrlOption,
    selection_from,
    user_meant,
)
from aiproxyd.commands.table import csv_cell
from aiproxyd.exceptions import AiproxydError

if TYPE_CHECKING:
    import rich.progress

    from aiproxyd.storage.selection import Selection

_JsonObject = dict[str, Any]

# Columns of CSV and Parquet that are copied.
_PLAIN = (
    "id",
    "started_at",
    "ended_at",
    "provider",
    "provider_name",
    "api",
    "route",
    "host",
    "model",
    "response_model",
    "streaming",
    "client",
    "client_version",
    "session_id",
    "thread_parent_id",
    "thread_root_id",
    "outcome",
    "status_code",
    "error_type",
    "error_message",
    "finish_reason",
    "usage_source",
    "request_bytes",
    "response_bytes",
    "first_output_seconds",
    "duration_seconds",
)
_FIGURES = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
COLUMNS = (*_PLAIN, "user_id", "user", *_FIGURES, "cost_micros", "prompt", "tools", "tool_calls", "thoughts", "metadata")


class Format(enum.StrEnum):
    """What is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="Where to; standard output when absent.", show_default=False),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "--output",
            "-o",
            help="What is written; when absent, what the file's name ends in, else jsonl. Parquet needs aiproxyd[parquet].",
            show_default=False,
        ),
    ] = None,
    initiator: InitiatorOption = "",
    provider: ProviderOption = "",
    model: ModelOption = "",
    client: ClientOption = "",
    started_after: StartedAfterOption = None,
    started_before: StartedBeforeOption = None,
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """Export interceptions, newest first.

    JSON lines hold each record whole. CSV and Parquet hold a row each, with the sums of its tokens, its prompt, and the names of
    the tools it called.

    For example:

      aiproxyd interceptions export --file january.parquet --started-after 2026-01-01T00:00:00Z --started-before 2026-02-01T00:00:00Z

      aiproxyd interceptions export | gzip > all.jsonl.gz

      aiproxyd interceptions export --format csv --initiator alice --url http://proxy.example:8889 --token TOKEN
    """
    chosen = format_ or _format_of(file)
    if chosen is Format.PARQUET and file is None:
        raise typer.BadParameter("parquet needs --file")
    selection = selection_from(
        initiator=user_meant(initiator, url),
        provider=provider,
        model=model,
        client=client,
        started_after=started_after,
        started_before=started_before,
    )
    with (
        without_collector(),
        open_records(lambda: read_configuration(config).store_url, url, token) as records,
        destination(chosen, file) as write,
        _progress(records, selection) as advance,
    ):
        for page in pages(records, selection):
            write(page)
            advance(len(page))


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep the collector of cycles from walking through records: they have none, and are gone page by page."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def pages(records: Records, selection: "Selection") -> Iterator[list[_JsonObject]]:
    """Yield the interceptions of `selection`, newest first, a page at a time."""
    after_id = ""
    while page := records.interceptions(selection, after_id=after_id, limit=PAGE, raw=True):
        yield page
        if len(page) < PAGE:
            return
        after_id = page[-1]["id"]


def flat(record: _JsonObject) -> _JsonObject:
    """Return a record as one row of `COLUMNS`."""
    usages = record["token_usages"]
    costs = [usage["cost_micros"] for usage in usages if usage["cost_micros"] is not None]
    tools = record["tool_usages"]
    row = {name: record[name] for name in _PLAIN}
    row["user_id"] = record["initiator"]["id"]
    row["user"] = record["initiator"]["username"]
    for name in _FIGURES:
        row[name] = sum(usage[name] for usage in usages)
    row["cost_micros"] = sum(costs) if costs else None
    row["prompt"] = record["user_prompts"][0]["prompt"] if record["user_prompts"] else None
    row["tools"] = ", ".join(dict.fromkeys(tool["tool"] for tool in tools))
    row["tool_calls"] = len(tools)
    row["thoughts"] = len(record["model_thoughts"])
    row["metadata"] = msgspec.json.encode(record["metadata"]).decode()
    return row


def _format_of(file: Path | None) -> Format:
    ending = file.suffix.removeprefix(".") if file is not None else ""
    return Format(ending) if ending in list(Format) else Format.JSONL


type _Write = Callable[[list[_JsonObject]], None]


@contextlib.contextmanager
def destination(chosen: Format, file: Path | None) -> Iterator[_Write]:
    """Yield what writes a page. A file takes its place when it is whole."""
    if file is None:
        with _writer(chosen, sys.stdout) as write:
            yield write
        sys.stdout.flush()
        return
    partial = file.with_name(file.name + ".partial")
    try:
        if chosen is Format.PARQUET:
            with _parquet_writer(partial) as write:
                yield write
        else:
            with partial.open("w", encoding="utf-8", newline="") as stream, _writer(chosen, stream) as write:
                yield write
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writer(chosen: Format, stream: TextIO) -> Iterator[_Write]:
    if chosen is Format.JSONL:
        # As bytes: encoding twice would be half the work.
        binary = stream.buffer if hasattr(stream, "buffer") else None
        encode = msgspec.json.Encoder().encode_lines

        def write_lines(page: list[_JsonObject]) -> None:
            if binary is not None:
                binary.write(encode(page))
            else:
                stream.write(encode(page).decode())

        yield write_lines
        if binary is not None:
            binary.flush()
        return
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)

    def write_rows(page: list[_JsonObject]) -> None:
        for record in page:
            row = flat(record)
            writer.writerow([csv_cell(row[name]) for name in COLUMNS])

    yield write_rows


@contextlib.contextmanager
def _parquet_writer(file: Path) -> Iterator[_Write]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # it has no annotations
        from pyarrow import parquet
    except ModuleNotFoundError as exc:
        raise AiproxydError("parquet needs pyarrow: pip install 'aiproxyd[parquet]'") from exc
    kinds = {
        "streaming": pa.bool_(),
        "first_output_seconds": pa.float64(),
        "duration_seconds": pa.float64(),
        **dict.fromkeys((*_FIGURES, "cost_micros", "request_bytes", "response_bytes"), pa.int64()),
        **dict.fromkeys(("status_code", "tool_calls", "thoughts"), pa.int32()),
    }
    time = pa.timestamp("us", tz="UTC")
    texts = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    schema = pa.schema(
        [(name, time if name in {"started_at", "ended_at"} else kinds.get(name, pa.string())) for name in COLUMNS]
    )
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:

        def write_table(page: list[_JsonObject]) -> None:
            rows = [flat(record) for record in page]
            writer.write_table(pa.Table.from_pylist(rows, schema=texts).cast(schema))

        yield write_table


@contextlib.contextmanager
def _progress(records: Records, selection: "Selection") -> Iterator[Callable[[int], None]]:
    """Yield what counts rows, shown on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task: rich.progress.TaskID = progress.add_task("exporting", total=records.count(selection))
        yield lambda count: progress.advance(task, count)
