"""`aiproxyd interceptions`: what was recorded, read from the store itself, whether the daemon runs or not."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.export import export
from aiproxyd.commands.records import open_records
from aiproxyd.commands.selecting import (
    AdminTokenOption,
    ClientOption,
    InitiatorOption,
    ModelOption,
    StartedAfterOption,
    StartedBeforeOption,
    UrlOption,
    limit_of,
    selection_from,
    user_meant,
    uuid_of,
)
from aiproxyd.commands.table import Output, OutputOption, json_text, print_programs
from aiproxyd.exceptions import StorageError

if TYPE_CHECKING:
    from aiproxyd.storage.store import Store

app = typer.Typer(help="The AI requests that were recorded.", rich_markup_mode=None)
app.command()(export)

_MAX_PROMPT_CHARACTERS = 48

# Wide enough for every column, where no terminal says how wide it is.
_PIPE_COLUMNS = 240


@app.command("list")
def list_(
    *,
    initiator: InitiatorOption = "",
    provider: Annotated[str, typer.Option(help="Only those to this provider, by name or type.", show_default=False)] = "",
    model: ModelOption = "",
    client: ClientOption = "",
    started_after: StartedAfterOption = None,
    started_before: StartedBeforeOption = None,
    after_id: Annotated[
        str | None,
        typer.Option(
            callback=uuid_of, metavar="UUID", help="Go on behind this interception, the last of a page.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option(callback=limit_of, help="At most so many, from 1 to 1000.")] = 100,
    output: OutputOption = Output.JSON,
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """List interceptions, newest first.

    For example:

      aiproxyd interceptions list --limit 10 --output table

      aiproxyd interceptions list --initiator alice --started-after 2026-01-31T08:00:00Z

      aiproxyd interceptions list --url http://proxy.example:8889 --token TOKEN --provider anthropic
    """
    from aiproxyd.storage.queries import InterceptionFilter

    filter_ = InterceptionFilter(
        initiator=user_meant(initiator, url),
        provider=provider,
        model=model,
        client=client,
        started_after=started_after,
        started_before=started_before,
        after_id=after_id or "",
        limit=limit,
    )
    if url:
        # There a provider is named by its type.
        selection = selection_from(
            initiator=user_meant(initiator, url),
            provider=provider,
            model=model,
            client=client,
            started_after=started_after,
            started_before=started_before,
        )
        with open_records(str, url, token) as records:
            found = records.interceptions(selection, after_id=after_id or "", limit=limit)
    else:
        found = _read(read_configuration(config).store_url, lambda store: store.interceptions(filter_))
    if output is Output.TABLE:
        _print_table(found)
    else:
        print_programs(found, output=output)


@app.command()
def show(
    interception_id: Annotated[str, typer.Argument(metavar="ID", callback=uuid_of, help="The interception's id.")],
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """Print all that is known of one interception.

    For example:

      aiproxyd interceptions show 5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11
    """
    with open_records(lambda: read_configuration(config).store_url, url, token) as records:
        found = records.interception(interception_id)
    if found is None:
        message = f"interception {interception_id!r} not found"
        raise StorageError(message)
    typer.echo(json_text(found))


def _read[T](url: str, query: "Callable[[Store], Awaitable[T]]") -> T:
    async def read() -> T:
        from aiproxyd.storage.store import Store

        store = await Store.open(url, create=False)
        try:
            return await query(store)
        finally:
            await store.close()

    return asyncio.run(read())


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
