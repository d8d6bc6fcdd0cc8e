"""Sums up what was used: requests, tokens and cost, by user, model, provider, client, project or day.

Strategy: whole days come from the rollups, which hold them summed up; what a selection cuts out of its first and last day comes
from the records. The two together are what the records alone would give, and more where records were deleted by age: of those
the whole days are left. A session is no part of a rollup, so a report of one reads its records.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage import rollups
from aiproxyd.storage.counted import TOKENS, day_of, project_of
from aiproxyd.storage.selection import Selection, conditions_of
from aiproxyd.storage.tables import interceptions, token_usages, usage_rollups, users

MAX_ROWS = 10_000

FIGURES = TOKENS

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


_ROLLED_UP = {
    Dimension.USER: "initiator_id",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider_name",
    Dimension.CLIENT: "client",
    Dimension.PROJECT: "project",
    Dimension.DAY: "day",
}

_SUMMED = ("requests", "failures", *FIGURES, "cost_micros", "priced", "unpriced")
_TOKENS = slice(2, 2 + len(FIGURES))
_COST = 2 + len(FIGURES)

_Key = tuple[str, ...]
_Figures = tuple[int, ...]
"""Values of `_SUMMED`."""

_Sums = dict[_Key, _Figures]

_NO_FAILURES = ("", "completed")
"""The outcomes that are no failures: under way, and completed."""


type Edge = tuple[datetime | None, datetime | None]
"""From and until, both inclusive."""


class Span(NamedTuple):
    """How a selection's time is read: whole days from rollups, the rest from records."""

    first_day: str | None
    """None for the very first."""
    end_day: str | None
    """The first that does not belong to it; None for no end."""
    has_days: bool
    """Whether there is a whole day at all."""
    edges: tuple[Edge, ...]
    """The parts of days."""


def span_of(after: datetime | None, before: datetime | None) -> Span:
    """Return how the time from `after` until `before` is read; both inclusive, None for no bound."""
    instant = timedelta(microseconds=1)
    first = _next_midnight(after.astimezone(UTC)) if after is not None else None
    # The first moment that does not belong to it; at a midnight the day before is whole.
    end = before.astimezone(UTC) + instant if before is not None and before < _LAST else None
    last = _midnight(end) if end is not None else None
    if first is not None and last is not None and first >= last:
        return Span(None, None, has_days=False, edges=((after, before),))
    edges: list[Edge] = []
    if first is not None and after is not None and first > after:
        edges.append((after, first - instant))
    if last is not None and end is not None and end > last:
        edges.append((last, before))
    return Span(
        first.date().isoformat() if first is not None else None,
        last.date().isoformat() if last is not None else None,
        has_days=True,
        edges=tuple(edges),
    )


_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)


def _midnight(at: datetime) -> datetime:
    return datetime.combine(at.date(), time(), UTC)


def _next_midnight(at: datetime) -> datetime:
    """Return the first midnight that is not before `at`."""
    midnight = _midnight(at)
    return midnight if midnight == at or at >= _LAST else midnight + timedelta(days=1)


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
    return (await report_of(connection, selection, dimensions, limit=limit))[1]


async def report_of(
    connection: AsyncConnection, selection: Selection, dimensions: Sequence[Dimension], *, limit: int = MAX_ROWS
) -> tuple[_JsonObject, list[_JsonObject]]:
    """Return one row for everything, and the rows of `usage_of`."""
    sums: _Sums = {}
    for statement in await _of_parts_of_days(connection, selection, dimensions):
        _merge(sums, await _sums(connection, statement, len(dimensions)))
    total = _total(sums)
    span = span_of(selection.started_after, selection.started_before)
    if span.has_days and not selection.session_id:
        facts = await conditions_of(connection, selection, usage_rollups, of_time=False)
        if Dimension.DAY in dimensions:
            days = await _sums(connection, _of_rollups([*facts, *_days(span)], [Dimension.DAY]), 1)
            total = tuple(map(add, total, _total(days)))
            sums |= await _first_days(connection, facts, sorted(day for (day,) in days), dimensions, limit)
        else:
            found = await _sums(connection, _of_rollups([*facts, *_days(span)], dimensions), len(dimensions))
            total = tuple(map(add, total, _total(found)))
            _merge(sums, found)
    if not dimensions:
        return _shape((), total, (), {}), [_shape((), total, (), {})]
    names = await _names(connection) if Dimension.USER in dimensions else {}
    day = list(dimensions).index(Dimension.DAY) if Dimension.DAY in dimensions else None
    return _shape((), total, (), {}), [_shape(*item, dimensions, names) for item in _first(sums, day, limit)]


async def _sums(connection: AsyncConnection, statement: Select[Any], width: int) -> _Sums:
    return {row[:width]: row[width:] for row in (await connection.execute(statement)).all()}


def _merge(sums: _Sums, more: _Sums) -> None:
    for key in sums.keys() & more.keys():
        more[key] = tuple(map(add, sums[key], more[key]))
    sums |= more


def _total(sums: _Sums) -> _Figures:
    return tuple(map(sum, zip(*sums.values(), strict=True))) if sums else (0,) * len(_SUMMED)


async def _first_days(
    connection: AsyncConnection,
    facts: Sequence[ColumnElement[Any]],
    days: Sequence[str],
    dimensions: Sequence[Dimension],
    limit: int,
) -> _Sums:
    """Return the sums of the first of `days`, as many as it takes for `limit` rows. By day is how rows are ordered, so no others
    are shown.
    """
    found: _Sums = {}
    at, size = 0, 1
    while at < len(days) and len(found) < limit:
        piece = days[at : at + size]
        column = usage_rollups.c.day
        statement = _of_rollups([*facts, column >= piece[0], column <= piece[-1]], dimensions)
        sums = await _sums(connection, statement, len(dimensions))
        found |= {key: figures for key, figures in sums.items() if figures[0]}
        at, size = at + size, size * 2
    return found


async def count_selected(connection: AsyncConnection, selection: Selection) -> int:
    """Return how many interceptions `selection` lets through."""
    if selection.session_id:
        return await _count_records(connection, await conditions_of(connection, selection))
    span = span_of(selection.started_after, selection.started_before)
    facts = await conditions_of(connection, selection, of_time=False)
    count = 0
    if span.has_days:
        statement = select(func.coalesce(func.sum(usage_rollups.c.kept), 0))
        statement = statement.where(*await conditions_of(connection, selection, usage_rollups, of_time=False), *_days(span))
        count = int((await connection.execute(statement)).scalar_one())
    for edge in span.edges:
        count += await _count_records(connection, [*facts, *_within(edge)])
    return count


async def _count_records(connection: AsyncConnection, conditions: Iterable[ColumnElement[Any]]) -> int:
    statement = select(func.count()).select_from(interceptions).where(*conditions)
    return int((await connection.execute(statement)).scalar_one())


async def _of_parts_of_days(
    connection: AsyncConnection, selection: Selection, dimensions: Sequence[Dimension]
) -> list[Select[Any]]:
    """Return the statements that sum up what is not in whole days: a session, or what a selection cuts out of days."""
    if selection.session_id:
        return [_of_records(connection, await conditions_of(connection, selection), dimensions)]
    edges = span_of(selection.started_after, selection.started_before).edges
    if not edges:
        return []
    facts = await conditions_of(connection, selection, of_time=False)
    # One each: with OR a database may read every row.
    return [_of_records(connection, [*facts, *_within(edge)], dimensions) for edge in edges]


def _days(span: Span) -> list[ColumnElement[Any]]:
    day = usage_rollups.c.day
    conditions: list[ColumnElement[Any]] = []
    if span.first_day is not None:
        conditions.append(day >= span.first_day)
    if span.end_day is not None:
        conditions.append(day < span.end_day)
    return conditions


def _within(edge: Edge) -> list[ColumnElement[Any]]:
    at = interceptions.c.started_at
    start, end = edge
    after = [at >= start.astimezone(UTC)] if start is not None else []
    return [*after, at <= end.astimezone(UTC)] if end is not None else after


def _of_rollups(conditions: Iterable[ColumnElement[Any]], dimensions: Sequence[Dimension]) -> Select[Any]:
    columns = usage_rollups.c
    keys = [columns[_ROLLED_UP[dimension]] for dimension in dimensions]
    failures = func.sum(columns.requests).filter(columns.outcome.not_in(_NO_FAILURES))
    sums = [func.sum(columns[name]) for name in (*FIGURES, "cost_micros", "priced", "unpriced")]
    figures = [_as_integer(each) for each in (func.sum(columns.requests), failures, *sums)]
    return select(*keys, *figures).where(*conditions).group_by(*keys)


def _as_integer(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return a sum as an integer, 0 for none. PostgreSQL's sums are decimals, of which a page of 30,000 rows takes half a second."""
    return cast(func.coalesce(column, 0), BigInteger)


def _of_records(
    connection: AsyncConnection, conditions: Iterable[ColumnElement[Any]], dimensions: Sequence[Dimension]
) -> Select[Any]:
    keys = [_column(connection, dimension).label(f"by_{dimension}") for dimension in dimensions]
    requests, *rest = map(_as_integer, rollups.figures())
    failures = func.count().filter(
        func.coalesce(token_usages.c.position, 0) == 0, func.coalesce(interceptions.c.outcome, "").not_in(_NO_FAILURES)
    )
    joined = interceptions.outerjoin(token_usages, token_usages.c.interception_id == interceptions.c.id)
    return select(*keys, requests, failures, *rest).select_from(joined).where(*conditions).group_by(*keys)


def _column(connection: AsyncConnection, dimension: Dimension) -> ColumnElement[Any]:
    if dimension is Dimension.PROJECT:
        return project_of()
    if dimension is Dimension.DAY:
        return day_of(connection.dialect.name)
    return interceptions.c[_ROLLED_UP[dimension]]


async def _names(connection: AsyncConnection) -> dict[str, str]:
    return {row.id: row.name for row in await connection.execute(select(users.c.id, users.c.name))}


def _first(sums: _Sums, day: int | None, limit: int) -> list[tuple[_Key, _Figures]]:
    """Return the first `limit` of those that stand for a request: by day when there is one, the heaviest first, in a stable order."""
    items = [item for item in sums.items() if item[1][0]]

    def foremost(item: tuple[_Key, _Figures]) -> Any:
        return item[0][day] if day is not None else -item[1][_COST]

    if len(items) > limit > 0:
        # Of tens of thousands most are left out by what comes first in the order, before any is weighed whole.
        last = sorted(map(foremost, items))[limit - 1]
        items = [item for item in items if foremost(item) <= last]

    def weight(item: tuple[_Key, _Figures]) -> tuple[Any, ...]:
        key, figures = item
        return (foremost(item), -figures[_COST], -sum(figures[_TOKENS]), -figures[0], key)

    return sorted(items, key=weight)[:limit]


def _shape(key: _Key, figures: _Figures, dimensions: Sequence[Dimension], names: Mapping[str, str]) -> _JsonObject:
    row = dict(zip(_SUMMED, figures, strict=True))
    shaped: _JsonObject = {}
    for dimension, value in zip(dimensions, key, strict=True):
        is_user = dimension is Dimension.USER
        shaped[str(dimension)] = {"id": value, "name": names.get(value, "")} if is_user else value
    tokens = {name: row[name] for name in FIGURES}
    return shaped | {
        "requests": row["requests"],
        "failures": row["failures"],
        **tokens,
        "total_tokens": sum(tokens.values()),
        "cost_micros": row["cost_micros"] if row["priced"] else None,
        "unpriced": row["unpriced"],
    }
