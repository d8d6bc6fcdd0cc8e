"""Keeps what lists of sessions say, so that a page reads some hundred rows and not every interception of its sessions.

Facts: a row of `session_parts` stands for the ended interceptions of one session that began on one day (UTC) and agree in
provider, model and client. It is changed in the transaction that changes them. A day, so that a session of months is no single
row: what a selection cuts through is then of the day of the cut.

Strategy: as with rollups, the interceptions that a transaction touches are summed up as they were and as they are. Numbers are added. First and last times cannot be taken back that way: a part that may have lost one (records were deleted, or a thread
moved to another session) is made again from its rows, under its lock, so that what others commit meanwhile is in those rows or is
added behind them.
"""

import datetime as dt
import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.counted import TOKENS, Counted, day_of
from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.statements import among, execute_many, insert_into, upsert
from aiproxyd.storage.tables import interceptions, session_parts, token_usages

DIMENSIONS: Final = ("session_id", "initiator_id", "day", "provider", "provider_name", "model", "client")
ADDED: Final = ("interceptions", "threads", "failures", *TOKENS, "cost_micros", "priced")
_TIMES = ("started_at", "last_started_at", "prompted_at", "ended_at")

_Key = tuple[str, ...]
"""Values of `DIMENSIONS`."""

Sums = dict[_Key, dict[str, Any]]
"""Values of `_TIMES` and `ADDED`, by key."""

# As the statement below has it, to which an outcome that is not known is no failure either.
_NO_FAILURE = (None, "completed")

# Rows of an insert when all are made again.
_ROWS_AT_ONCE = 1000

# In one order, or two could wait for each other.
_LOCK = select(session_parts.c.id).where(among(session_parts.c.id)).order_by(session_parts.c.id).with_for_update()


def sums_of(counted: Iterable[Counted]) -> Sums:
    """Return the sums of interceptions that have ended."""
    sums: Sums = {}
    for one in counted:
        if one.ended_at is None:
            continue
        key = (one.session_id, one.initiator_id, one.day, one.provider, one.provider_name, one.model, one.client)
        is_first = one.is_first
        own = {
            "started_at": one.started_at,
            "last_started_at": one.started_at,
            "prompted_at": one.started_at if one.has_prompt else None,
            "ended_at": one.ended_at,
            "interceptions": int(is_first),
            "threads": int(is_first and one.thread_root_id is None),
            "failures": int(is_first and one.outcome not in _NO_FAILURE),
            "input_tokens": one.input_tokens,
            "output_tokens": one.output_tokens,
            "cache_read_input_tokens": one.cache_read_input_tokens,
            "cache_write_input_tokens": one.cache_write_input_tokens,
            "cost_micros": one.cost_micros or 0,
            "priced": int(one.cost_micros is not None),
        }
        others = sums.get(key)
        sums[key] = own if others is None else _together(others, own)
    return sums


async def apply_change(connection: AsyncConnection, before: Iterable[Counted], after: Iterable[Counted]) -> None:
    """Do to the parts of sessions what a transaction did to interceptions. Takes PostgreSQL's locks of those parts.

    Args:
        connection: In that transaction, with the locks of those interceptions; figures by day are written before.
        before: What they were.
        after: What they are.
    """
    old, new = sums_of(before), sums_of(after)
    changed = sorted((id_of(key), key) for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if not changed:
        return
    if connection.dialect.name == "postgresql":
        await _lock(connection, [id_ for id_, _ in changed])
    shrunk = [key for _, key in changed if key in old and _may_shrink(old[key], new.get(key))]
    left = set(shrunk)
    # In one order: daemons that share a database wait for each other and not in a ring.
    grown = [_row(id_, key, _difference(old.get(key), new[key])) for id_, key in changed if key not in left]
    await execute_many(connection, _adding(connection.dialect.name), grown)
    await _make_again(connection, shrunk)


async def rebuild(connection: AsyncConnection) -> None:
    """Make every part again from the records. For stores filled from elsewhere."""
    await connection.execute(delete(session_parts))
    sums = await _summed(connection, _summed_up(connection.dialect.name))
    for batch in itertools.batched(sums.items(), _ROWS_AT_ONCE):
        await connection.execute(insert(session_parts), [_row(id_of(key), key, values) for key, values in batch])


def id_of(key: Iterable[str]) -> str:
    """Return the primary key of a part. The values themselves may be longer than an index takes."""
    return _digest(key, 16).hex()


def session_key_of(session_id: str, initiator_id: str) -> int:
    """Return a number that stands for a session; that two of a million share one is less likely than 1 in 10 million."""
    return int.from_bytes(_digest((session_id, initiator_id), 8), signed=True)


def _digest(values: Iterable[str], size: int) -> bytes:
    encoded = [value.encode() for value in values]
    return hashlib.blake2b(b"".join([b"%d:%b" % (len(each), each) for each in encoded]), digest_size=size).digest()


@functools.cache
def _summed_up(dialect: str) -> Select[Any]:
    columns, tokens = interceptions.c, token_usages.c
    # Several token rows of one interception are one request: the first one counts, and so does having none.
    is_first = func.coalesce(tokens.position, 0) == 0
    keys = [day_of(dialect).label(name) if name == "day" else columns[name] for name in DIMENSIONS]
    sums: list[ColumnElement[Any]] = [
        func.min(columns.started_at).label("started_at"),
        func.max(columns.started_at).label("last_started_at"),
        func.max(case((columns.has_prompt, columns.started_at))).label("prompted_at"),
        func.max(columns.ended_at).label("ended_at"),
        func.count(case((is_first, 1))).label("interceptions"),
        func.count(case((and_(is_first, columns.thread_root_id.is_(None)), 1))).label("threads"),
        func.count(case((and_(is_first, columns.outcome != "completed"), 1))).label("failures"),
        *(func.coalesce(func.sum(tokens[name]), 0).label(name) for name in (*TOKENS, "cost_micros")),
        func.count(tokens.cost_micros).label("priced"),
    ]
    joined = interceptions.outerjoin(token_usages, tokens.interception_id == columns.id)
    return select(*keys, *sums).select_from(joined).where(columns.ended_at.is_not(None)).group_by(*keys)


async def _summed(connection: AsyncConnection, statement: Select[Any]) -> Sums:
    width, names = len(DIMENSIONS), (*_TIMES, *ADDED)
    first_number = width + len(_TIMES)
    return {
        tuple(row[:width]): dict(zip(names, (*row[width:first_number], *map(int, row[first_number:])), strict=True))
        for row in await connection.execute(statement)
    }


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] + other[name] for name in ADDED} | {
        "started_at": min(one["started_at"], other["started_at"]),
        "last_started_at": max(one["last_started_at"], other["last_started_at"]),
        "prompted_at": max((each for each in (one["prompted_at"], other["prompted_at"]) if each), default=None),
        "ended_at": max(one["ended_at"], other["ended_at"]),
    }


def _may_shrink(before: Mapping[str, Any], after: Mapping[str, Any] | None) -> bool:
    """Return whether a first or last time of a part may have been taken away."""
    return (
        after is None
        or after["interceptions"] < before["interceptions"]
        or after["started_at"] > before["started_at"]
        or any(before[name] and (not after[name] or after[name] < before[name]) for name in _TIMES[1:])
    )


def _difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    return dict(after) if before is None else {**after, **{name: after[name] - before[name] for name in ADDED}}


def _row(id_: str, key: _Key, values: Mapping[str, Any]) -> dict[str, Any]:
    named = dict(zip(DIMENSIONS, key, strict=True))
    return {
        "id": id_,
        "session_key": session_key_of(named["session_id"], named["initiator_id"]),
        "active_at": values["prompted_at"] or values["started_at"],
        **named,
        **values,
    }


async def _lock(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Have other transactions that change these parts wait."""
    for piece in in_pieces(ids):
        await connection.execute(_LOCK, {"ids": piece})


@functools.cache
def _adding(dialect: str) -> Any:
    statement = insert_into(dialect, session_parts)
    old, new = session_parts.c, statement.excluded
    prompted = _later(old.prompted_at, new.prompted_at)
    started = case((new.started_at < old.started_at, new.started_at), else_=old.started_at)
    changed = {
        **{name: old[name] + new[name] for name in ADDED},
        "started_at": started,
        "last_started_at": _later(old.last_started_at, new.last_started_at),
        "prompted_at": prompted,
        "ended_at": _later(old.ended_at, new.ended_at),
        "active_at": func.coalesce(prompted, started),
    }
    return statement.on_conflict_do_update(index_elements=("id",), set_=changed)


async def _make_again(connection: AsyncConnection, keys: Sequence[_Key]) -> None:
    """Write parts as their rows have them now; the parts are locked, and `keys` in the order of their ids."""
    found: Sums = {}
    by_day: dict[str, set[str]] = defaultdict(set)
    for session_id, _, day, *_rest in keys:
        by_day[day].add(session_id)
    columns = interceptions.c
    for day, sessions in sorted(by_day.items()):
        start = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
        of_day = (columns.started_at >= start, columns.started_at <= start + (dt.timedelta(days=1) - dt.timedelta.resolution))
        for piece in in_pieces(sessions):
            found |= await _summed(
                connection, _summed_up(connection.dialect.name).where(columns.session_id.in_(piece), *of_day)
            )
    rows = [_row(id_of(key), key, found[key]) for key in keys if key in found]
    if rows:
        statement = upsert(connection.dialect.name, session_parts, ("id",), (*_TIMES, *ADDED, "active_at"))
        await connection.execute(statement, rows)
    for piece in in_pieces([id_of(key) for key in keys if key not in found]):
        await connection.execute(delete(session_parts).where(session_parts.c.id.in_(piece)))


def _later(old: ColumnElement[Any], new: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((old.is_(None), new), (new > old, new), else_=old)
