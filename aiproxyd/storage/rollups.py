"""Keeps figures summed up by day, so that a report of months reads thousands of rows instead of millions.

Facts: a row of `usage_rollups` stands for all interceptions that began on one day (UTC) and agree in user, provider, model,
client, project and outcome. It is changed in the transaction that changes them, so the two never differ, and a line of a journal
that is applied once counts once.

Strategy: what a transaction does to figures is not worked out from what it writes. The interceptions it touches are summed up
before and after by one and the same statement, and the difference is added. So repeated lines, a later report of the same
response, an amount that is priced again and an end that comes twice need no rule of their own.

`requests` and the tokens stay when records are deleted by age; `kept` counts the records that are still there.
"""

import contextlib
import functools
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.statements import among, execute_many, insert_into
from aiproxyd.storage.tables import interceptions, token_usages, usage_rollups

DIMENSIONS: Final = ("day", "initiator_id", "provider", "provider_name", "model", "client", "project", "outcome")
TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
FIGURES: Final = ("requests", *TOKENS, "cost_micros", "priced", "unpriced")

Key = tuple[str, ...]
"""Values of `DIMENSIONS`."""

Sums = dict[Key, list[int]]
"""Values of `FIGURES` by key."""

# Rows of an insert when all are made again.
_ROWS_AT_ONCE = 1000

# In one order, or two who lock could wait for each other. Not against those who only refer to the rows.
_LOCK = select(interceptions.c.id).where(among(interceptions.c.id)).order_by(interceptions.c.id).with_for_update(key_share=True)


def day_of(dialect: str) -> ColumnElement[str]:
    """Return the day in UTC on which an interception began, as `2026-01-31`."""
    started_at = interceptions.c.started_at
    if dialect == "postgresql":
        return func.to_char(func.timezone("UTC", started_at), "YYYY-MM-DD")
    # Text that begins with the date.
    return func.substr(started_at, 1, 10)


def project_of() -> ColumnElement[str]:
    """Return what the client of an interception says it works on: `project`, else `repo`, of the metadata."""
    document = interceptions.c.metadata
    return func.coalesce(document["project"].as_string(), document["repo"].as_string(), "")


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


@contextlib.asynccontextmanager
async def keeping_rollups(connection: AsyncConnection, ids: Collection[str]) -> AsyncIterator[None]:
    """Add to the rollups what the body of the `with` changes in the figures of the interceptions `ids`.

    Holds PostgreSQL's locks of those interceptions, so that whoever else changes them waits; SQLite has one writer.

    Args:
        connection: In a transaction.
        ids: Every interception whose figures may change; some may not exist before or after.
    """
    before = await _locked_sums(connection, ids)
    yield
    changes: Sums = defaultdict(lambda: [0] * len(FIGURES))
    for sums, sign in ((before, -1), (await _sums_of(connection, ids), 1)):
        for key, values in sums.items():
            changed = changes[key]
            for place, value in enumerate(values):
                changed[place] += sign * value
    # A record that comes or goes is one that is kept or not.
    await _add(connection, {key: (values, values[0]) for key, values in changes.items() if any(values)})


async def forget_records(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Let the rollups know that the interceptions `ids` are about to be deleted: their figures stay.

    Args:
        connection: In the transaction that deletes them.
        ids: Of interceptions.
    """
    nothing = [0] * len(FIGURES)
    sums = await _locked_sums(connection, ids)
    await _add(connection, {key: (nothing, -values[0]) for key, values in sums.items()})


async def rebuild(connection: AsyncConnection) -> None:
    """Make every rollup again from the records; what was deleted by age is forgotten. For stores filled from elsewhere."""
    await connection.execute(delete(usage_rollups))
    rows = []
    for key, values in (await _sums(connection, _summed_up(connection.dialect.name))).items():
        rows.append(_row(key, values, values[0]))
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


@functools.cache
def _summed_up_among(dialect: str) -> Select[Any]:
    return _summed_up(dialect).where(among(interceptions.c.id))


async def lock_interceptions(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Have others who change the interceptions `ids` wait for the end of the transaction."""
    if connection.dialect.name == "postgresql":
        for piece in in_pieces(ids):
            await connection.execute(_LOCK, {"ids": piece})


async def _locked_sums(connection: AsyncConnection, ids: Collection[str]) -> Sums:
    await lock_interceptions(connection, ids)
    return await _sums_of(connection, ids)


async def _sums_of(connection: AsyncConnection, ids: Collection[str]) -> Sums:
    sums: Sums = {}
    statement = _summed_up_among(connection.dialect.name)
    for piece in in_pieces(ids):
        for key, values in (await _sums(connection, statement, {"ids": piece})).items():
            seen = sums.get(key)
            sums[key] = values if seen is None else [one + other for one, other in zip(seen, values, strict=True)]
    return sums


async def _sums(connection: AsyncConnection, statement: Select[Any], parameters: Mapping[str, Any] | None = None) -> Sums:
    width = len(DIMENSIONS)
    rows = await connection.execute(statement, parameters)
    return {tuple(row[:width]): [int(value) for value in row[width:]] for row in rows}


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
