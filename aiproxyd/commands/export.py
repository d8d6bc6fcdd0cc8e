"""`aiproxyd interceptions export`: every record of a time, whole as JSON lines or flat as CSV or Parquet, with flat memory."""

import contextlib
import csv
import enum
import errno
import gc
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import msgspec
import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.records import Records, open_records
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

    from aiproxyd.storage.bulk import Record
    from aiproxyd.storage.selection import Selection

type _Page = Sequence[Record | dict[str, Any]]

# Columns of CSV and Parquet that are copied.
_PLAIN = (
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
COLUMNS = (
    *("id", "started_at", "ended_at", *_PLAIN, "user_id", "user", *_FIGURES),
    *("cost_micros", "prompt", "tools", "tool_calls", "thoughts", "metadata"),
)
_figures_of = operator.attrgetter(*_FIGURES)


# Text of so many stays near the processor and within memory that is there already.
_LINES_AT_ONCE = 16


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
        for page in records.bulk(selection):
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


def flat(page: _Page) -> Iterator[Sequence[Any]]:
    """Yield records as rows of `COLUMNS`."""
    from aiproxyd.storage.bulk import Record

    plain = operator.attrgetter(*_PLAIN)
    encode = msgspec.json.encode
    for each in page:
        record = Record.of(each) if isinstance(each, dict) else each
        usages = record.token_usages
        if len(usages) == 1:
            # So are nearly all.
            cost = usages[0].cost_micros
            figures = _figures_of(usages[0])
        else:
            costs = [usage.cost_micros for usage in usages if usage.cost_micros is not None]
            cost = sum(costs) if costs else None
            figures = tuple(sum(each) for each in zip((0,) * len(_FIGURES), *map(_figures_of, usages), strict=True))
        tools = record.tool_usages
        yield (
            record.id,
            _as_text(record.started_at),
            _as_text(record.ended_at),
            *plain(record),
            record.initiator.id,
            record.initiator.username,
            *figures,
            cost,
            record.user_prompts[0].prompt if record.user_prompts else None,
            ", ".join(dict.fromkeys([tool.tool for tool in tools])) if tools else "",
            len(tools),
            len(record.model_thoughts),
            encode(record.metadata).decode(),
        )


def _as_text(time: Any) -> str | None:
    # A datetime as the encoder of JSON lines has it.
    return time if time is None or isinstance(time, str) else msgspec.to_builtins(time)


def _format_of(file: Path | None) -> Format:
    ending = file.suffix.removeprefix(".") if file is not None else ""
    return Format(ending) if ending in list(Format) else Format.JSONL


type _Write = Callable[[_Page], None]


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
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        partial.touch()
    except OSError as exc:
        # Of the file that was asked for, and before anything is asked.
        raise AiproxydError(f"{file} cannot be written: {exc.strerror}") from exc
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

        def write_lines(page: _Page) -> None:
            for start in range(0, len(page), _LINES_AT_ONCE):
                lines = encode(page[start : start + _LINES_AT_ONCE])
                if binary is not None:
                    binary.write(lines)
                else:
                    stream.write(lines.decode())

        yield write_lines
        if binary is not None:
            binary.flush()
        return
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)

    def write_rows(page: _Page) -> None:
        writer.writerows([csv_cell(value) for value in row] for row in flat(page))

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

        def write_table(page: _Page) -> None:
            columns = zip(*flat(page), strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, texts, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=texts).cast(schema))

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
