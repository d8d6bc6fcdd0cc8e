"""`aiproxyd providers`: what the configuration makes of its provider entries."""

import asyncio
import os
from typing import Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.table import Output, OutputOption, cell, print_rows

# A table's line stays a line; the JSON has the whole sample.
_MAX_SAMPLE_CHARACTERS = 120

# What a terminal shows in one line, as a rule.
_TABLE_CHARACTERS = 80

app = typer.Typer(help="The AI providers whose traffic is decrypted.", rich_markup_mode=None)


@app.command("list")
def list_(output: OutputOption = Output.TABLE, config: ConfigOption = None) -> None:
    """List the providers with their hosts, keys and status, as the daemon would have them if it started here and now.

    Keys are shown masked. A key that comes from an environment variable is looked for in the environment of this command.

    For example:

      aiproxyd providers list

      aiproxyd providers list --output json
    """
    from aiproxyd.config.keys import problems_of, read_keys
    from aiproxyd.config.providers import provider_table
    from aiproxyd.credentials import hint_of

    settings = read_configuration(config)
    keys = read_keys(settings, os.environ)
    rows: list[dict[str, Any]] = [
        {
            "name": provider.name,
            "type": provider.type,
            "status": provider.status.value,
            "hosts": list(provider.hosts(settings.egress.allowed_ports)),
            "path_prefix": provider.path_prefix,
            "keys": [hint_of(key) for key in keys[provider.name].keys] if provider.name in keys else [],
            "reason": provider.reason,
        }
        for provider in provider_table(settings, problems_of(keys)).providers
    ]
    if output is not Output.TABLE:
        print_rows(rows, [], output=output, empty="")
        return
    columns = ["name", "type", "status", "keys"]
    table = [row | {"keys": _shortened(row["keys"], 0)} for row in rows]
    taken = sum(max(len(column), *(len(cell(row[column])) for row in table)) + 2 for column in columns) if table else 0
    for row in table:
        row["hosts"] = _shortened(row["hosts"], _TABLE_CHARACTERS - taken)
    print_rows(table, [*columns, "hosts"], output=output, empty="no provider is configured")
    for row in rows:
        if row["reason"]:
            typer.echo(f"{row['name']}: {cell(row['reason'])}")


def _shortened(words: list[str], width: int) -> str:
    """Return as many of `words` as `width` characters hold, at least one, and how many more there are."""
    for count in range(len(words), 0, -1):
        more = f" +{len(words) - count}" if count < len(words) else ""
        text = ", ".join(words[:count]) + more
        if len(text) <= width or count == 1:
            return text
    return ""


@app.command()
def drift(output: OutputOption = Output.TABLE, config: ConfigOption = None) -> None:
    """List what was not known in responses, and what was missing, with the shape of one each; no content is in it.

    For example:

      aiproxyd providers drift

      aiproxyd providers drift --output json
    """
    found = asyncio.run(_unknown_events(read_configuration(config).store_url))
    rows = [
        row | {name: row[name].isoformat(timespec="seconds") for name in ("first_seen_at", "last_seen_at")} for row in found
    ]
    if output is Output.TABLE:
        for row in rows:
            row["sample"] = _cut(row["sample"] or "")
    columns = ["provider", "api", "kind", "count", "last_seen_at", "sample"]
    print_rows(rows, columns, output=output, empty="every response was understood")


def _cut(sample: str) -> str:
    return sample if len(sample) <= _MAX_SAMPLE_CHARACTERS else sample[: _MAX_SAMPLE_CHARACTERS - 1] + "…"


async def _unknown_events(url: str) -> list[dict[str, Any]]:
    from aiproxyd.storage.store import Store

    store = await Store.open(url, create=False)
    try:
        return await store.unknown_events()
    finally:
        await store.close()
