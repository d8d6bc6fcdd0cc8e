"""Keeps figures summed up by day, so that a report of months reads thousands of rows instead of millions.

Facts: a row of `usage_rollups` stands for all interceptions that began on one day (UTC) and agree in user, provider, model,
client, project and outcome. It is changed in the transaction that changes them, so the two never differ, and a line of a journal
that is applied once counts once.

Strategy: what a transaction does to figures is not worked out from what it changes. The interceptions it touches are summed up as
they were before and as they are after, and the difference is added. So repeated lines, a later report of the same response, an
amount that is priced again and an end that comes twice need no rule of their own.

`requests` and the tokens stay when records are deleted by age; `kept` counts the records that are still there.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.counted import TOKENS, Counted, day_of, project_of
from aiproxyd.storage.statements import execute_many, insert_into
from aiproxyd.storage.tables import interceptions, token_usages, usage_rollups

DIMENSIONS: Final = ("day", "initiator_id", "provider", "provider_name", "model", "client", "project", "outcome")
FIGURES: Final = ("requests", *TOKENS, "cost_micros", "priced", "unpriced")

Key = tuple[str, ...]
"""Values of `DIMENSIONS`."""

Sums = dict[Key, list[int]]
"""Values of `FIGURES` by key."""

# Rows of an insert when all are made again.
_ROWS_AT_ONCE = 1000


def figures() -> list[ColumnElement[Any]]:
    """Return `FIGURES` of interceptions that are joined with their token rows."""
    tokens = token_usages.c
    # Several token rows of one interception are one request: its first row counts, and so does having none.
    return [
        func.count(case((func.coalesce(tokens.position, 0) == 0, 1))).label("requests"),
        *(func.coalesce(func.sum(tokens[name]), 0).label(name) for name in TOKENS),
        func.coalesce(func.sum(tokens.cost_micros), 0).label("cost_micros"),
        func.count(tokens.cost_micros).label("priced"),
        func.count(case((tokens.cost_micros.is_(None), tokens.interception_id))).label("unpriced"),
    ]


def sums_of(counted: Iterable[Counted]) -> Sums:
    """Return the sums of interceptions, as `figures` are of those in the store."""
    sums: Sums = {}
    for one in counted:
        key = (
            *(one.day, one.initiator_id, one.provider, one.provider_name),
            *(one.model, one.client, one.project, one.outcome or ""),
        )
        values = sums.get(key)
        if values is None:
            values = sums[key] = [0] * len(FIGURES)
        values[0] += one.is_first
        if one.position is not None:
            values[1] += one.input_tokens
            values[2] += one.output_tokens
            values[3] += one.cache_read_input_tokens
            values[4] += one.cache_write_input_tokens
            if one.cost_micros is None:
                values[7] += 1
            else:
                values[5] += one.cost_micros
                values[6] += 1
    return sums


async def add_change(connection: AsyncConnection, before: Iterable[Counted], after: Iterable[Counted]) -> None:
    """Add to the rollups what a transaction did to interceptions.

    Args:
        connection: In that transaction, with the locks of those interceptions.
        before: What they were.
        after: What they are.
    """
    changes: Sums = defaultdict(lambda: [0] * len(FIGURES))
    for sums, sign in ((sums_of(before), -1), (sums_of(after), 1)):
        for key, values in sums.items():
            changed = changes[key]
            for place, value in enumerate(values):
                changed[place] += sign * value
    # A record that comes or goes is one that is kept or not.
    await _add(connection, {key: (values, values[0]) for key, values in changes.items() if any(values)})


async def forget_records(connection: AsyncConnection, records: Iterable[Counted]) -> None:
    """Let the rollups know that interceptions are deleted by age: their figures stay.

    Args:
        connection: In the transaction that deletes them.
        records: What they were.
    """
    nothing = [0] * len(FIGURES)
    await _add(connection, {key: (nothing, -values[0]) for key, values in sums_of(records).items()})


async def rebuild(connection: AsyncConnection) -> None:
    """Make every rollup again from the records; what was deleted by age is forgotten. For stores filled from elsewhere."""
    await connection.execute(delete(usage_rollups))
    rows = []
    width = len(DIMENSIONS)
    for summed_up in await connection.execute(_summed_up(connection.dialect.name)):
        values = [int(value) for value in summed_up[width:]]
        rows.append(_row(tuple(summed_up[:width]), values, values[0]))
        if len(rows) == _ROWS_AT_ONCE:
            await connection.execute(insert(usage_rollups), rows)
            rows = []
    if rows:
        await connection.execute(insert(usage_rollups), rows)


def id_of(key: Key) -> str:
    """Return the primary key of a rollup. The values themselves may be longer than an index takes."""
    digest = hashlib.blake2b(digest_size=16)
    for value in key:
        encoded = value.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()


@functools.cache
def _summed_up(dialect: str) -> Select[Any]:
    columns = interceptions.c
    keys = [
        day_of(dialect).label("day"),
        *(columns[name] for name in ("initiator_id", "provider", "provider_name", "model", "client")),
        project_of().label("project"),
        func.coalesce(columns.outcome, "").label("outcome"),
    ]
    joined = interceptions.outerjoin(token_usages, token_usages.c.interception_id == columns.id)
    return select(*keys, *figures()).select_from(joined).group_by(*keys)


def _row(key: Key, values: Collection[int], kept: int) -> dict[str, Any]:
    named = dict(zip(DIMENSIONS, key, strict=True)) | dict(zip(FIGURES, values, strict=True))
    return named | {"id": id_of(key), "kept": kept}


async def _add(connection: AsyncConnection, changes: Mapping[Key, tuple[list[int], int]]) -> None:
    if not changes:
        return
    # In one order, as users are: daemons that share a database wait for each other and not in a ring.
    rows = sorted((_row(key, values, kept) for key, (values, kept) in changes.items()), key=lambda row: str(row["id"]))
    await execute_many(connection, _adding(connection.dialect.name), rows)


@functools.cache
def _adding(dialect: str) -> Any:
    statement = insert_into(dialect, usage_rollups)
    added = {name: usage_rollups.c[name] + statement.excluded[name] for name in (*FIGURES, "kept")}
    return statement.on_conflict_do_update(index_elements=("id",), set_=added)
