"""Sums up what was used: requests, tokens and cost, by user, model, provider, client, project or day."""

import enum
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.selection import Selection, conditions_of
from aiproxyd.storage.tables import interceptions, token_usages, users

MAX_ROWS = 10_000

FIGURES = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")

_JsonObject = dict[str, Any]


class Dimension(enum.StrEnum):
    """What figures are summed up by."""

    USER = "user"
    MODEL = "model"
    PROVIDER = "provider"
    """The name of the provider's entry in the configuration."""
    CLIENT = "client"
    PROJECT = "project"
    """What the client says it works on: `project`, else `repo`, of the interception's metadata."""
    DAY = "day"
    """In UTC."""


async def usage_of(
    connection: AsyncConnection, selection: Selection, dimensions: Sequence[Dimension], *, limit: int = MAX_ROWS
) -> list[_JsonObject]:
    """Return a row for each combination of `dimensions` that occurs: by day when that is one, then by cost, tokens and requests.

    Interceptions under way count as requests.

    Args:
        connection: Only reads.
        selection: Which interceptions count.
        dimensions: What to sum up by, each once; none gives one row for everything.
        limit: How many rows at most.
    """
    keys = {dimension: _column(connection, dimension).label(f"by_{dimension}") for dimension in dimensions}
    joined = interceptions.outerjoin(token_usages, token_usages.c.interception_id == interceptions.c.id)
    statement = (
        select(*keys.values(), *_sums())
        .select_from(joined)
        .where(*await conditions_of(connection, selection))
        .group_by(*keys.values())
    )
    rows = [dict(row) for row in (await connection.execute(statement)).mappings()]
    names = await _names(connection) if Dimension.USER in keys else {}
    # Whole: the heaviest first, and in a stable order.
    rows.sort(key=lambda row: _weight(row, list(keys)))
    return [_shape(row, list(keys), names) for row in rows[:limit] if row["requests"] or not keys]


def _sums() -> list[ColumnElement[Any]]:
    tokens = token_usages.c
    # Several token rows of one interception are one request: its first row counts, and so does having none.
    is_first = func.coalesce(tokens.position, 0) == 0
    return [
        func.count(case((is_first, 1))).label("requests"),
        func.count(case((is_first & (interceptions.c.outcome != "completed"), 1))).label("failures"),
        *(func.coalesce(func.sum(tokens[name]), 0).label(name) for name in FIGURES),
        func.sum(tokens.cost_micros).label("cost_micros"),
        func.count(case((tokens.cost_micros.is_(None), tokens.interception_id))).label("unpriced"),
    ]


def _column(connection: AsyncConnection, dimension: Dimension) -> ColumnElement[Any]:
    columns = interceptions.c
    match dimension:
        case Dimension.USER:
            return columns.initiator_id
        case Dimension.MODEL:
            return columns.model
        case Dimension.PROVIDER:
            return columns.provider_name
        case Dimension.CLIENT:
            return columns.client
        case Dimension.PROJECT:
            document = columns.metadata
            return func.coalesce(document["project"].as_string(), document["repo"].as_string(), "")
        case Dimension.DAY:
            if connection.dialect.name == "postgresql":
                return func.to_char(func.timezone("UTC", columns.started_at), "YYYY-MM-DD")
            # Text that begins with the date.
            return func.substr(columns.started_at, 1, 10)


async def _names(connection: AsyncConnection) -> dict[str, str]:
    return {row.id: row.name for row in await connection.execute(select(users.c.id, users.c.name))}


def _weight(row: _JsonObject, keys: Sequence[Dimension]) -> tuple[Any, ...]:
    day = (str(row["by_day"]),) if Dimension.DAY in keys else ()
    tokens = sum(int(row[name]) for name in FIGURES)
    rest = tuple(str(row[f"by_{key}"]) for key in keys)
    return (*day, -int(row["cost_micros"] or 0), -tokens, -row["requests"], rest)


def _shape(row: _JsonObject, keys: Sequence[Dimension], names: dict[str, str]) -> _JsonObject:
    shaped: _JsonObject = {}
    for key in keys:
        value = row[f"by_{key}"]
        shaped[str(key)] = {"id": value, "name": names.get(value, "")} if key is Dimension.USER else value
    figures = {name: int(row[name]) for name in FIGURES}
    return shaped | {
        "requests": row["requests"],
        "failures": row["failures"],
        **figures,
        "total_tokens": sum(figures.values()),
        "cost_micros": None if row["cost_micros"] is None else int(row["cost_micros"]),
        "unpriced": row["unpriced"],
    }
