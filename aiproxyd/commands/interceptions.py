"""`aiproxyd interceptions`: what was recorded, read from the store itself, whether the daemon runs or not."""

import asyncio
import json
import re
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.table import Output, OutputOption
from aiproxyd.exceptions import StorageError

if TYPE_CHECKING:
    from aiproxyd.storage.store import Store

app = typer.Typer(help="The AI requests that were recorded.", rich_markup_mode=None)

# Behind JSON's own escapes: what moves a terminal's cursor or turns its text around. Prompts hold whatever they hold.
_TROUBLE = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_MAX_PROMPT_CHARACTERS = 48

# Wide enough for every column, where no terminal says how wide it is.
_PIPE_COLUMNS = 240


def _limit(value: int) -> int:
    from aiproxyd.storage.queries import MAX_LIMIT

    if not 1 <= value <= MAX_LIMIT:
        message = f"limit value must be between 1 and {MAX_LIMIT}"
        raise typer.BadParameter(message)
    return value


def _uuid(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        message = f"{value!r} is not a UUID"
        raise typer.BadParameter(message) from None


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    message = f"{value!r} is not an RFC 3339 time such as 2026-01-31T08:00:00Z"
    raise typer.BadParameter(message)


@app.command("list")
def list_(
    *,
    initiator: Annotated[str, typer.Option(help="Only those of this user, by name or id.", show_default=False)] = "",
    provider: Annotated[str, typer.Option(help="Only those to this provider, by name or type.", show_default=False)] = "",
    model: Annotated[str, typer.Option(help="Only those that asked for this model.", show_default=False)] = "",
    client: Annotated[str, typer.Option(help='Only those of this client, such as "Claude Code".', show_default=False)] = "",
    started_after: Annotated[
        datetime | None,
        typer.Option(
            parser=_time, metavar="TIME", help="Only those that started at this RFC 3339 time or later.", show_default=False
        ),
    ] = None,
    started_before: Annotated[
        datetime | None,
        typer.Option(parser=_time, metavar="TIME", help="Only those that started at this time or earlier.", show_default=False),
    ] = None,
    after_id: Annotated[
        str | None,
        typer.Option(
            callback=_uuid, metavar="UUID", help="Go on behind this interception, the last of a page.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option(callback=_limit, help="At most so many, from 1 to 1000.")] = 100,
    output: OutputOption = Output.JSON,
    config: ConfigOption = None,
) -> None:
    """List interceptions, newest first.

    For example:

      aiproxyd interceptions list --limit 10 --output table

      aiproxyd interceptions list --initiator alice --started-after 2026-01-31T08:00:00Z
    """
    from aiproxyd.storage.queries import InterceptionFilter

    filter_ = InterceptionFilter(
        initiator=initiator,
        provider=provider,
        model=model,
        client=client,
        started_after=started_after,
        started_before=started_before,
        after_id=after_id or "",
        limit=limit,
    )
    found = _read(read_configuration(config).store_url, lambda store: store.interceptions(filter_))
    if output is Output.JSON:
        _print_json(found)
    else:
        _print_table(found)


@app.command()
def show(
    interception_id: Annotated[str, typer.Argument(metavar="ID", callback=_uuid, help="The interception's id.")],
    config: ConfigOption = None,
) -> None:
    """Print all that is known of one interception.

    For example:

      aiproxyd interceptions show 5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11
    """
    found = _read(read_configuration(config).store_url, lambda store: store.interception(interception_id))
    if found is None:
        message = f"interception {interception_id!r} not found"
        raise StorageError(message)
    _print_json(found)


def _read[T](url: str, query: "Callable[[Store], Awaitable[T]]") -> T:
    async def read() -> T:
        from aiproxyd.storage.store import Store

        store = await Store.open(url, create=False)
        try:
            return await query(store)
        finally:
            await store.close()

    return asyncio.run(read())


def _print_json(value: Any) -> None:
    # A terminal that cannot show every character gets escapes instead of an error.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode)
    typer.echo(_TROUBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _print_table(found: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not found:
        typer.echo("no interception was found")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("STARTED", "USER", "PROVIDER", "MODEL", "CLIENT", "OUTCOME"):
        table.add_column(head, overflow="fold")
    for head in ("INPUT", "CACHE R", "CACHE W", "OUTPUT", "TOOLS", "SECONDS"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("PROMPT", no_wrap=True, overflow="ellipsis")
    table.add_column("ID", no_wrap=True)
    for interception in found:
        table.add_row(*(Text(_one_line(cell)) for cell in _cells(interception)))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    console.print(table)


def _cells(interception: dict[str, Any]) -> list[str]:
    usages = interception["token_usages"]
    counts = [
        str(sum(usage[name] for usage in usages)) if usages else ""
        for name in ("input_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "output_tokens")
    ]
    seconds = interception["duration_seconds"]
    prompt = interception["user_prompts"][0]["prompt"] if interception["user_prompts"] else ""
    return [
        interception["started_at"][:19].replace("T", " "),
        interception["initiator"]["username"] or interception["initiator"]["id"],
        interception["provider_name"],
        interception["model"],
        interception["client"],
        interception["outcome"] or "open",
        *counts,
        str(len(interception["tool_usages"]) or ""),
        "" if seconds is None else f"{seconds:.1f}",
        prompt if len(prompt) <= _MAX_PROMPT_CHARACTERS else prompt[: _MAX_PROMPT_CHARACTERS - 1] + "…",
        interception["id"],
    ]


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
