"""How lists are printed: aligned columns for people, JSON, JSON lines or CSV for programs."""

import csv
import enum
import io
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer


class Output(enum.StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="`table` for people; `json`, `jsonl` and `csv` for programs.")
]

# Behind JSON's own escapes: what moves a terminal's cursor or turns its text around. Prompts hold whatever they hold.
_TROUBLE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return `value` as JSON that a terminal shows and does not obey."""
    # A terminal that cannot show every character gets escapes instead of an error.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, indent=indent, ensure_ascii=not is_unicode, default=str)
    return _TROUBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_programs(rows: Iterable[Mapping[str, Any]], *, output: Output) -> None:
    """Print `rows` on standard output as JSON, JSON lines or CSV; in CSV nested objects become columns joined with dots."""
    match output:
        case Output.JSON:
            typer.echo(json_text(list(rows)))
        case Output.JSONL:
            for row in rows:
                typer.echo(json_text(row, indent=None))
        case _:
            typer.echo(csv_text([flattened(row) for row in rows]), nl=False)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return flat `rows` as CSV with a head of all keys."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if names:
        writer.writerow(names)
    for row in rows:
        writer.writerow([csv_cell(row.get(name)) for name in names])
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """Return a value for CSV. Text that a spreadsheet would run gets a mark before it."""
    if isinstance(value, str):
        return "'" + value if value.startswith(_FORMULA) else value
    return "" if value is None else value


def flattened(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `row` without nesting: objects by names joined with dots, lists as JSON."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            plain = all(isinstance(item, str) for item in value)
            flat[prefix + name] = ", ".join(value) if plain else json.dumps(value, ensure_ascii=False, default=str)
        else:
            flat[prefix + name] = value
    return flat


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, output: Output, empty: str) -> None:
    """Print `rows` on standard output.

    Args:
        rows: What to print; programs get every key, the table only `columns`.
        columns: Keys of the table's columns; their heads are the keys in capitals.
        output: Which of them.
        empty: The sentence that stands for a table of no rows.
    """
    if output is not Output.TABLE:
        print_programs(rows, output=output)
        return
    if not rows:
        typer.echo(empty)
        return
    lines = [
        [column.upper().replace("_", " ") for column in columns],
        *([cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """Return `value` as one line that a terminal shows and does not obey."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    # One row is one line, whatever a name holds, and a terminal obeys nothing in it.
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))
