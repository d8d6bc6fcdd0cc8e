"""`aiproxyd usage`: requests, tokens and cost, summed up."""

import enum
from typing import Annotated, Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.records import open_records
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
from aiproxyd.commands.sessions import dollars
from aiproxyd.commands.table import Output, OutputOption, json_text, print_programs, print_rows


class By(enum.StrEnum):
    """What figures are summed up by; the store's words, repeated so that --help need not load it."""

    USER = "user"
    MODEL = "model"
    PROVIDER = "provider"
    CLIENT = "client"
    PROJECT = "project"
    DAY = "day"


def usage(
    *,
    by: Annotated[
        list[By] | None, typer.Option("--by", help="Sum up by this; may be given more than once.", show_default="user")
    ] = None,
    initiator: InitiatorOption = "",
    provider: ProviderOption = "",
    model: ModelOption = "",
    client: ClientOption = "",
    started_after: StartedAfterOption = None,
    started_before: StartedBeforeOption = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """Sum up requests, tokens and cost.

    For example:

      aiproxyd usage --by user --by model

      aiproxyd usage --by day --started-after 2026-01-01T00:00:00Z --output csv > january.csv

      aiproxyd usage --by project --url http://proxy.example:8889 --token TOKEN
    """
    from aiproxyd.storage.usage_report import Dimension

    chosen = list(dict.fromkeys(Dimension(each) for each in by or [By.USER]))
    selection = selection_from(
        initiator=user_meant(initiator, url),
        provider=provider,
        model=model,
        client=client,
        started_after=started_after,
        started_before=started_before,
    )
    with open_records(lambda: read_configuration(config).store_url, url, token) as records:
        found = records.usage(selection, chosen)
    match output:
        case Output.JSON:
            typer.echo(json_text(found))
        case Output.TABLE:
            rows = [_row(row, chosen) for row in found["usage"]]
            if len(rows) > 1:
                rows.append(_row(found["total"] | {str(chosen[0]): "total"}, chosen))
            figures = ["requests", "input", "cache_read", "cache_write", "output", "cost"]
            print_rows(rows, [*map(str, chosen), *figures], output=output, empty="nothing was used")
        case _:
            print_programs(found["usage"], output=output)


def _row(row: dict[str, Any], chosen: list[Any]) -> dict[str, Any]:
    names: dict[str, Any] = {str(each): row.get(str(each), "") for each in chosen}
    user = names.get("user")
    if isinstance(user, dict):
        names["user"] = user["name"] or user["id"]
    return names | {
        "requests": row["requests"],
        "input": row["input_tokens"],
        "cache_read": row["cache_read_input_tokens"],
        "cache_write": row["cache_write_input_tokens"],
        "output": row["output_tokens"],
        "cost": dollars(row["cost_micros"]),
    }
