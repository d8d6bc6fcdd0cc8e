"""Finds which sessions a list shows, in order, and counts them.

Facts: a session is active at the start of its newest request with a prompt, else at its first request. Only requests that have
ended count, and of those only the ones that the selection lets through.

Strategy: grouping everything to show a hundred sessions would read the whole store. Instead the walk goes over parts of sessions
(`session_parts`), the last active first, from an index, in pieces. A session that has not been met when the walk is at T has all
its parts before T, so it was not active after T: whatever was met and was active after T is in its final place.

A bound of time may cut through a part. Such a part began on the day of the bound, and its session is looked up in the records
themselves, as is everything where parts say too little: a selection by outcome or of one session.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.selection import Selection, conditions_of
from aiproxyd.storage.tables import interceptions, session_parts

# Entries of a piece: the first for each wanted session, then twice as many each time.
_ROWS_A_SESSION = 8
_PARTS_A_SESSION = 2
_MAX_PIECE = 20_000

# Keys of a statement: two variables each, far below SQLite's 32,766.
_KEYS_A_STATEMENT = 500


class Key(NamedTuple):
    """What makes a session one."""

    session_id: str
    initiator_id: str


class Place(NamedTuple):
    """Where a session stands in a list; lists are in descending order of it."""

    last_active_at: dt.datetime
    session_id: str
    initiator_id: str

    @property
    def key(self) -> Key:
        """The session's."""
        return Key(self.session_id, self.initiator_id)


@dataclass(slots=True)
class Walked:
    """What a walk found."""

    places: list[Place]
    parts: dict[Key, list[Row[Any]]] = field(default_factory=dict)
    """What is known of those that need no look at their records."""


_columns = interceptions.c
_key = (_columns.session_id, _columns.initiator_id)
_parts = session_parts.c
ended = _columns.ended_at.is_not(None)
last_active = func.coalesce(func.max(case((_columns.has_prompt, _columns.started_at))), func.min(_columns.started_at))


async def first_places(connection: AsyncConnection, selection: Selection, wanted: int, after: Place | None = None) -> Walked:
    """Return the first `wanted` places, or the first behind `after`, in order."""
    if not _is_of_parts(selection):
        conditions = [ended, *await conditions_of(connection, selection)]
        return Walked(await _walk_records(connection, conditions, wanted, after))
    within = await conditions_of(connection, selection, session_parts, of_time=False)
    cut = await _cut(connection, selection, within)
    places = {
        place.key: place for place in await places_of(connection, cut.values(), await conditions_within(connection, selection))
    }
    window = [*within, *_between(selection)]
    statement = select(_parts.active_at, _parts.session_key).where(*window)
    statement = statement.order_by(_parts.active_at.desc(), _parts.session_key.desc())
    if after is not None:
        # A session that was active at L has a part that was active at L.
        statement = statement.where(_parts.active_at <= after.last_active_at)
    met_keys = set(cut)
    found: dict[Key, list[Row[Any]]] = {}
    at: tuple[dt.datetime, int] | None = None
    size = min(_MAX_PIECE, wanted * _PARTS_A_SESSION)
    while True:
        # A second part of a session that is active at the same moment adds nothing, and may be stepped over.
        piece = statement if at is None else statement.where(tuple_(_parts.active_at, _parts.session_key) < at)
        rows = (await connection.execute(piece.limit(size))).all()
        new = {row.session_key for row in rows} - met_keys
        met_keys |= new
        for key, parts in (await _parts_of(connection, new, window)).items():
            found[key] = parts
            prompted = [row.prompted_at for row in parts if row.prompted_at is not None]
            places[key] = Place(max(prompted) if prompted else min(row.started_at for row in parts), *key)
        met = sorted((place for place in places.values() if after is None or place < after), reverse=True)
        ends = len(rows) < size
        if not ends:
            at = (rows[-1].active_at, rows[-1].session_key)
            ends = len(met) >= wanted and met[wanted - 1].last_active_at > at[0]
        if ends:
            return Walked(met[:wanted], found)
        size = min(_MAX_PIECE, size * 2)


async def count_sessions(connection: AsyncConnection, selection: Selection) -> int:
    """Return how many sessions a list would have without a limit."""
    if not _is_of_parts(selection):
        conditions = [ended, *await conditions_of(connection, selection)]
        keys = select(*_key).where(*conditions).distinct().subquery()
        return int((await connection.execute(select(func.count()).select_from(keys))).scalar_one())
    within = await conditions_of(connection, selection, session_parts, of_time=False)
    cut = await _cut(connection, selection, within)
    window = [*within, *_between(selection)]
    distinct = select(_parts.session_key).where(*window).distinct()
    whole = int((await connection.execute(select(func.count()).select_from(distinct.subquery()))).scalar_one())
    # Those that are cut count by their records, and not because of their parts.
    for piece in in_statements(sorted(cut)):
        of_piece = distinct.where(_parts.session_key.in_(piece)).subquery()
        whole -= int((await connection.execute(select(func.count()).select_from(of_piece))).scalar_one())
    return whole + len(await places_of(connection, cut.values(), await conditions_within(connection, selection)))


async def places_of(connection: AsyncConnection, keys: Iterable[Key], conditions: Sequence[ColumnElement[Any]]) -> list[Place]:
    """Return the places of those of `keys` that have a record with `conditions`, in no order."""
    wanted = set(keys)
    places: list[Place] = []
    for piece in in_statements(sorted(wanted)):
        statement = select(*_key, last_active.label("last_active_at")).where(*conditions, among(piece)).group_by(*_key)
        rows = await connection.execute(statement)
        found = (Place(row.last_active_at, row.session_id, row.initiator_id) for row in rows)
        # Rows of other users of a session id come along; they are met on their own.
        places += [place for place in found if place.key in wanted]
    return places


async def conditions_within(connection: AsyncConnection, selection: Selection) -> list[ColumnElement[Any]]:
    """Return the conditions on records that are looked for by their sessions."""
    conditions = [ended, *await conditions_of(connection, selection)]
    # SQLite believes that a week of a client is shorter than two sessions, and would read all of it. No index has this expression.
    return [case((condition, 1), else_=0) == 1 for condition in conditions]


def among(keys: Sequence[Key]) -> ColumnElement[Any]:
    """Return the condition that a record is of one of the session ids: their index leads there. Other users' come along."""
    return _columns.session_id.in_(sorted({key.session_id for key in keys}))


def in_statements[T](keys: Sequence[T]) -> Iterable[Sequence[T]]:
    """Yield pieces of `keys` that fit a statement."""
    for start in range(0, len(keys), _KEYS_A_STATEMENT):
        yield keys[start : start + _KEYS_A_STATEMENT]


def _is_of_parts(selection: Selection) -> bool:
    return not selection.outcome and not selection.session_id


def _between(selection: Selection) -> list[ColumnElement[Any]]:
    """Return the condition that a part which is not cut is within the bounds of time."""
    conditions: list[ColumnElement[Any]] = []
    if selection.started_after is not None:
        conditions.append(_parts.active_at >= selection.started_after.astimezone(dt.UTC))
    if selection.started_before is not None:
        conditions.append(_parts.active_at <= selection.started_before.astimezone(dt.UTC))
    return conditions


async def _cut(connection: AsyncConnection, selection: Selection, within: Sequence[ColumnElement[Any]]) -> dict[int, Key]:
    """Return the sessions with a part that a bound of time cuts through, by their keys in parts."""
    cut: dict[int, Key] = {}
    after, before = selection.started_after, selection.started_before
    if after is not None:
        through = and_(_parts.started_at < after.astimezone(dt.UTC), _parts.last_started_at >= after.astimezone(dt.UTC))
        cut |= await _through(connection, [*within, *_on_day_of(after), through])
    if before is not None:
        through = and_(_parts.started_at <= before.astimezone(dt.UTC), _parts.last_started_at > before.astimezone(dt.UTC))
        cut |= await _through(connection, [*within, *_on_day_of(before), through])
    return cut


async def _through(connection: AsyncConnection, conditions: Sequence[ColumnElement[Any]]) -> dict[int, Key]:
    statement = select(_parts.session_key, _parts.session_id, _parts.initiator_id).where(*conditions)
    return {row[0]: Key(row[1], row[2]) for row in await connection.execute(statement)}


def _on_day_of(time: dt.datetime) -> list[ColumnElement[Any]]:
    start = time.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [_parts.active_at >= start, _parts.active_at <= start + (dt.timedelta(days=1) - dt.timedelta.resolution)]


async def _parts_of(
    connection: AsyncConnection, session_keys: Iterable[int], window: Sequence[ColumnElement[Any]]
) -> dict[Key, list[Row[Any]]]:
    parts: dict[Key, list[Row[Any]]] = defaultdict(list)
    for piece in in_statements(sorted(session_keys)):
        for row in await connection.execute(select(session_parts).where(_parts.session_key.in_(piece), *window)):
            parts[Key(row.session_id, row.initiator_id)].append(row)
    return parts


async def _walk_records(
    connection: AsyncConnection, conditions: Sequence[ColumnElement[Any]], wanted: int, after: Place | None
) -> list[Place]:
    """Walk over records as over parts: one is active when it began, and only its session may know of more."""
    statement = select(_columns.id, *_key, _columns.started_at, _columns.has_prompt).where(*conditions)
    statement = statement.order_by(_columns.started_at.desc(), _columns.id.desc())
    places: dict[Key, Place] = {}
    if after is not None:
        # A session that was active at L has a row that began at L.
        statement = statement.where(_columns.started_at <= after.last_active_at)
    at: tuple[dt.datetime, str] | None = None
    size = min(_MAX_PIECE, wanted * _ROWS_A_SESSION)
    while True:
        piece = statement if at is None else statement.where(tuple_(_columns.started_at, _columns.id) < at)
        rows = (await connection.execute(piece.limit(size))).all()
        unknown = set()
        for row in rows:
            key = Key(row.session_id, row.initiator_id)
            if key in places or key in unknown:
                continue
            if row.has_prompt and after is None:
                places[key] = Place(row.started_at, *key)
            else:
                unknown.add(key)
        places |= {place.key: place for place in await places_of(connection, unknown, conditions)}
        met = sorted((place for place in places.values() if after is None or place < after), reverse=True)
        if len(rows) < size:
            return met[:wanted]
        at = (rows[-1].started_at, rows[-1].id)
        if len(met) >= wanted and met[wanted - 1].last_active_at > at[0]:
            return met[:wanted]
        size = min(_MAX_PIECE, size * 2)
