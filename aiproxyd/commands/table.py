"""How lists are printed: aligned columns for people, JSON for programs."""

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer


class Output(enum.StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="`table` for people, `json` for programs.")]


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, output: Output, empty: str) -> None:
    """Print `rows` on standard output.

    Args:
        rows: What to print; the JSON holds every key, the table only `columns`.
        columns: Keys of the table's columns; their heads are the keys in capitals.
        output: Which of the two.
        empty: The sentence that stands for a table of no rows.
    """
    if output is Output.JSON:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
        return
    if not rows:
        typer.echo(empty)
        return
    lines = [
        [column.upper().replace("_", " ") for column in columns],
        *([_cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    # One row is one line, whatever a name holds, and a terminal obeys nothing in it.
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))
