"""`aiproxyd prices`: what tokens cost, where sources differ, and pricing stored records again. Nothing is fetched."""

import asyncio
import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.table import Output, OutputOption, print_rows
from aiproxyd.exceptions import ConfigError

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config
    from aiproxyd.pricing import Rates
    from aiproxyd.storage.costs import Repricing
    from aiproxyd.telemetry.prices import PriceBook

app = typer.Typer(help="What tokens cost.", rich_markup_mode=None)

_COLUMNS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")


def _day(value: str | None) -> dt.datetime | None:
    if value is None:
        return None
    try:
        time = dt.datetime.fromisoformat(value)
    except ValueError:
        message = f"{value!r} is not a day such as 2026-01-31"
        raise typer.BadParameter(message) from None
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


DayOption = Annotated[
    str | None, typer.Option("--at", metavar="DAY", help="Prices of this day; today's when absent.", callback=_day)
]


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="The model, as a request names it.", metavar="MODEL")],
    provider: Annotated[str, typer.Option("--provider", "-p", help="Name or type of a provider; every one when absent.")] = "",
    at: DayOption = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Show what a model costs, in USD per million tokens, with every tier that has a price of its own.

    For example:

      aiproxyd prices show claude-opus-5-5

      aiproxyd prices show gpt-5.5 --provider openai --at 2026-06-01
    """
    settings = read_configuration(config)
    book = _book(settings)
    rows = []
    for entry in _providers(settings, provider):
        for tier, rates in _tiers(book, entry, model, at):
            rows.append({"provider": entry[0], "source": rates.source, "version": rates.version, "entry": rates.model} | {
                "tier": tier or "standard",
                **{column: _rate(rates, column) for column in _COLUMNS},
            })  # fmt: skip
    print_rows(
        rows,
        ["provider", "source", "entry", "tier", *_COLUMNS],
        output=output,
        empty=f"no price of {model} is known; requests to it are recorded without a cost",
    )


@app.command()
def check(
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Also a file in the form of LiteLLM's price map (JSON).")
    ] = None,
    at: DayOption = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Show where sources differ: overrides, the providers' lists, resellers' lists, and a file.

    Prices are USD per million tokens.

    For example:

      aiproxyd prices check

      aiproxyd prices check --against model_prices_and_context_window.json
    """
    from aiproxyd.telemetry.price_check import check_lists, check_litellm, check_overrides

    settings = read_configuration(config)
    book = _book(settings)
    time = at if isinstance(at, dt.datetime) else dt.datetime.now(dt.UTC)
    lists = tuple(
        dict.fromkeys(
            book.lists_of(type_, host)[0] for _, type_, host in _providers(settings, "") if book.lists_of(type_, host)
        )
    )
    found = [
        difference
        for list_name in lists
        for difference in check_overrides(book, settings.pricing.to_overrides(), list_name, time)
    ]
    found += check_lists(book, lists, time)
    if against is not None:
        found += check_litellm(book, lists, time, _json(against))
    rows = [
        {
            "model": each.model,
            "part": str(each.part),
            "source": each.source,
            "price": _usd(each.micros),
            "other_source": each.other_source,
            "other_price": _usd(each.other_micros),
        }
        for each in found
    ]
    print_rows(
        rows, ["model", "part", "source", "price", "other_source", "other_price"], output=output, empty="the sources agree"
    )


@app.command()
def reprice(
    since: Annotated[str, typer.Option("--since", metavar="DAY", help="Records from this day on.", callback=_day)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    config: ConfigOption = None,
) -> None:
    """Price stored records again, with today's lists and overrides, by the day of each record.

    The amount before, with its source and version, is kept in the record's history.

    For example:

      aiproxyd prices reprice --since 2026-11-01 --dry-run
    """
    settings = read_configuration(config)
    assert isinstance(since, dt.datetime)
    result = asyncio.run(_reprice(settings, since, dry_run=dry_run))
    verb = "would change" if dry_run else "changed"
    typer.echo(
        f"{result.rows} records, {result.changed} {verb}: {_dollars(result.before_micros)} before, "
        f"{_dollars(result.after_micros)} after; {result.unpriced} have no known price"
    )
    for model, count in sorted(result.models.items(), key=lambda item: -item[1]):
        typer.echo(f"  {count:8} {model}")


async def _reprice(settings: "Config", since: dt.datetime, *, dry_run: bool) -> "Repricing":
    from aiproxyd.storage.store import Store
    from aiproxyd.telemetry.prices import ExactPrices

    store = await Store.open(settings.store_url, create=False)
    try:
        return await store.reprice(ExactPrices(_book(settings)), since, dry_run=dry_run)
    finally:
        await store.close()


def _book(settings: "Config") -> "PriceBook":
    from aiproxyd.telemetry.prices import PriceBook

    return PriceBook(settings.pricing.to_overrides())


def _providers(settings: "Config", wanted: str) -> list[tuple[str, str, str]]:
    """Return name, type and first host of each provider that is meant.

    Raises:
        ConfigError: There is none of this name or type.
    """
    from aiproxyd.config.providers import provider_table

    entries = [
        (entry.name, entry.type, next(iter(entry.authorities))[0] if entry.authorities else "")
        for entry in provider_table(settings).providers
        if wanted in {"", entry.name, entry.type}
    ]
    if not entries:
        message = f"{wanted!r} is neither the name nor the type of a configured provider"
        raise ConfigError(message)
    return entries


def _tiers(book: "PriceBook", entry: tuple[str, str, str], model: str, at: object) -> Sequence[tuple[str, "Rates"]]:
    from aiproxyd.model.usage import TokenUsage
    from aiproxyd.pricing import Charge

    time = (at if isinstance(at, dt.datetime) else dt.datetime.now(dt.UTC)).timestamp()
    name, type_, host = entry
    found = []
    tiers: list[dict[str, str]] = [{}, *book.variants(type_, host, model)]
    for tier in tiers:
        # As a reply would tell it.
        told = {"service_tier": "batch"} if tier.get("processing") == "batch" else tier
        charge = Charge(at=time, provider=name, provider_type=type_, host=host, model=model, usage=TokenUsage(), metadata=told)
        rates = book.rates(charge)
        if rates is not None and (not tier or rates.tier):
            found.append((rates.tier, rates))
    return found


def _rate(rates: "Rates", column: str) -> str:
    from aiproxyd.pricing import Part

    rate = rates.parts.get(Part(column))
    if rate is None:
        return "-"
    return "; ".join([_usd(rate.base), *(f"{_usd(micros)} above {threshold:,}" for threshold, micros in rate.above)])


def _usd(micros: Decimal) -> str:
    return f"{(micros / 1_000_000).normalize():f}"


def _dollars(micros: int) -> str:
    return f"{Decimal(micros) / 1_000_000:,.6f} USD"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ConfigError(f"{file}: no JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a JSON object of models was expected")
    return content
