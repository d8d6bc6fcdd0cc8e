"""Reads sessions: interceptions that share a session id and a user, newest activity first, and one session with its threads.

Which sessions a list shows, and in which order, `session_places` finds. What it says of them comes from parts of sessions, and
from the records where no part says it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.queries import interceptions_by_id
from aiproxyd.storage.selection import Selection, conditions_of
from aiproxyd.storage.session_places import (
    Key,
    Place,
    among,
    conditions_within,
    ended,
    first_places,
    in_statements,
    last_active,
)
from aiproxyd.storage.tables import interceptions, token_usages, user_prompts, users

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
MAX_THREADS = 200
DEFAULT_THREADS = 50

_JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SessionThreads:
    """A page of one session."""

    summary: _JsonObject
    """As in a list."""
    token_metadata: dict[str, int | float]
    threads: list[tuple[str, list[_JsonObject]]]
    """Id and interceptions with all that belongs to them, both oldest first."""
    has_earlier: bool
    has_later: bool


_columns = interceptions.c
_key = (_columns.session_id, _columns.initiator_id)
_thread_id = func.coalesce(_columns.thread_root_id, _columns.id)


async def list_sessions(
    connection: AsyncConnection,
    selection: Selection,
    *,
    limit: int = DEFAULT_LIMIT,
    offset: int = 0,
    after: Place | None = None,
) -> list[_JsonObject]:
    """Return sessions that have an interception `selection` lets through, the last active first.

    Args:
        connection: Only reads.
        selection: Which interceptions count.
        limit: How many sessions at most.
        offset: How many to leave out at the beginning.
        after: Where the page before ended.
    """
    facts = [ended, *await conditions_of(connection, selection, of_time=False)]
    conditions = await conditions_within(connection, selection)
    walked = await first_places(connection, selection, limit + offset, after)
    keys = [place.key for place in walked.places[offset:]]
    found = await _summaries(connection, [key for key in keys if key not in walked.parts], conditions, facts)
    found |= await _summaries_of_parts(connection, {key: walked.parts[key] for key in keys if key in walked.parts}, facts)
    return [found[key] for key in keys if key in found]


async def place_of(connection: AsyncConnection, selection: Selection, session_id: str, initiator: str = "") -> Place | None:
    """Return where a session stands among those of `selection`, or None when it is not among them.

    Args:
        connection: Only reads.
        selection: That of the list.
        session_id: The session's.
        initiator: Tells users apart who share a session id; the last active one when empty.
    """
    conditions = [ended, *await conditions_of(connection, selection), _columns.session_id == session_id]
    if initiator:
        conditions.append(_columns.initiator_id == initiator)
    statement = select(*_key, last_active.label("last_active_at")).where(*conditions).group_by(*_key)
    rows = await connection.execute(statement)
    return max((Place(row.last_active_at, row.session_id, row.initiator_id) for row in rows), default=None)


async def show_session(
    connection: AsyncConnection,
    id_: str,
    *,
    initiator: str = "",
    after_id: str = "",
    before_id: str = "",
    limit: int = DEFAULT_THREADS,
) -> SessionThreads | None:
    """Return a session with a page of its threads, or None when there is none.

    Args:
        connection: Only reads.
        id_: The session's, or that of an interception in it.
        initiator: Id of the user, where several share the session id; the last active one when empty.
        after_id: Only threads behind this one.
        before_id: Only threads before this one, the nearest to it.
        limit: How many threads at most.

    Raises:
        LookupError: The cursor is no thread of the session; the argument is the cursor.
    """
    place = await place_of(connection, Selection(), id_, initiator)
    if place is None:
        row = (await connection.execute(select(*_key).where(_columns.id == id_))).first()
        place = None if row is None else await place_of(connection, Selection(), row.session_id, initiator or row.initiator_id)
    if place is None:
        return None
    key = Key(place.session_id, place.initiator_id)
    within = [ended, _columns.session_id == key.session_id, _columns.initiator_id == key.initiator_id]
    began = func.min(_columns.started_at)
    statement = select(_thread_id.label("id")).where(*within).group_by(_thread_id).order_by(began, _thread_id)
    ids = list((await connection.execute(statement)).scalars())
    first, last = _page(ids, after_id, before_id, limit)
    page = ids[first:last]
    members = await _members(connection, within, page)
    summary = (await _summaries(connection, [key], [ended], [ended]))[key]
    return SessionThreads(
        summary=summary,
        token_metadata=await _token_metadata(connection, within),
        threads=[(id_, members[id_]) for id_ in page],
        has_earlier=first > 0,
        has_later=last < len(ids),
    )


def sum_of_figures(documents: Iterable[Mapping[str, Any]]) -> dict[str, int | float]:
    """Return the sums of the numbers in `documents`, keys of nested objects joined with dots; what is no number is left out."""
    sums: dict[str, int | float] = {}

    def add(prefix: str, document: Mapping[str, Any]) -> None:
        for name, value in document.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{name}.", value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                sums[prefix + name] = sums.get(prefix + name, 0) + value

    for document in documents:
        add("", document)
    return dict(sorted(sums.items()))


def _page(ids: Sequence[str], after_id: str, before_id: str, limit: int) -> tuple[int, int]:
    """Return where the page begins and ends in `ids`."""
    cursor = after_id or before_id
    if cursor and cursor not in ids:
        raise LookupError(cursor)
    if before_id:
        last = ids.index(before_id)
        return max(0, last - limit), last
    first = ids.index(after_id) + 1 if after_id else 0
    return first, min(len(ids), first + limit)


async def _members(
    connection: AsyncConnection, within: Sequence[ColumnElement[Any]], threads: Sequence[str]
) -> dict[str, list[_JsonObject]]:
    if not threads:
        return {}
    statement = select(_columns.id, _thread_id.label("thread_id")).where(*within, _thread_id.in_(threads))
    statement = statement.order_by(_columns.started_at, _columns.id)
    rows = (await connection.execute(statement)).all()
    found = {record["id"]: record for record in await interceptions_by_id(connection, [row.id for row in rows])}
    members = defaultdict(list)
    for row in rows:
        members[row.thread_id].append(found[row.id])
    return members


async def _token_metadata(connection: AsyncConnection, within: Sequence[ColumnElement[Any]]) -> dict[str, int | float]:
    tokens = token_usages.c
    statement = select(tokens.metadata).join(interceptions, _columns.id == tokens.interception_id).where(*within)
    return sum_of_figures((await connection.execute(statement)).scalars())


async def _summaries(
    connection: AsyncConnection,
    keys: Sequence[Key],
    conditions: Sequence[ColumnElement[Any]],
    facts: Sequence[ColumnElement[Any]],
) -> dict[Key, _JsonObject]:
    """Return what the records with `conditions` say of sessions; `facts` are those of them that are not about time."""
    found: dict[Key, _JsonObject] = {}
    for piece in in_statements(keys):
        within = [*conditions, among(piece)]
        totals = [_Total(*row) for row in await connection.execute(_totals(within))]
        for total in totals:
            found[Key(total.session_id, total.initiator_id)] = _summary(total)
        for row in await connection.execute(select(*_key, _columns.provider, _columns.model).where(*within).distinct()):
            summary = found[Key(row.session_id, row.initiator_id)]
            _insert(summary["providers"], row.provider)
            _insert(summary["models"], row.model)
        for row in await connection.execute(_token_totals(within)):
            summary = found[Key(row.session_id, row.initiator_id)]
            summary["token_usage_summary"] = {name: int(getattr(row, name)) for name in _FIGURES}
            summary["cost_micros"] = None if row.cost_micros is None else int(row.cost_micros)
        await _add_ends(connection, facts, totals, found)
    return found


async def _summaries_of_parts(
    connection: AsyncConnection, parts: Mapping[Key, Sequence[Row[Any]]], facts: Sequence[ColumnElement[Any]]
) -> dict[Key, _JsonObject]:
    """Return the same from all the parts of sessions that hold records with `facts`, and no others."""
    names: dict[str, str] = {}
    for ids in in_pieces({key.initiator_id for key in parts}):
        names.update(
            {row[0]: row[1] for row in await connection.execute(select(users.c.id, users.c.name).where(users.c.id.in_(ids)))}
        )
    found: dict[Key, _JsonObject] = {}
    totals = []
    for key, rows in parts.items():
        total = _Total.of(key, names.get(key.initiator_id), rows)
        totals.append(total)
        found[key] = _summary(total) | {
            "providers": sorted({row.provider for row in rows} - {""}),
            "models": sorted({row.model for row in rows} - {""}),
            "token_usage_summary": {name: sum(getattr(row, name) for row in rows) for name in _FIGURES},
            "cost_micros": sum(row.cost_micros for row in rows) if any(row.priced for row in rows) else None,
        }
    for piece in in_statements(totals):
        await _add_ends(connection, facts, piece, found)
    return found


class _Total(NamedTuple):
    """What is summed up for a session."""

    session_id: str
    initiator_id: str
    name: str | None
    started_at: datetime
    ended_at: datetime
    last_active_at: datetime
    prompted_at: datetime | None
    interceptions: int
    threads: int
    failures: int

    @classmethod
    def of(cls, key: Key, name: str | None, parts: Sequence[Row[Any]]) -> "_Total":
        """Return that of a session from its parts."""
        began = min(part.started_at for part in parts)
        prompted = max((part.prompted_at for part in parts if part.prompted_at is not None), default=None)
        counts = (sum(getattr(part, field) for part in parts) for field in ("interceptions", "threads", "failures"))
        return cls(*key, name, began, max(part.ended_at for part in parts), prompted or began, prompted, *counts)


_FIGURES = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")


def _totals(within: Sequence[ColumnElement[Any]]) -> Any:
    return (
        select(
            *_key,
            # One a user, whichever the database takes.
            func.max(users.c.name).label("name"),
            func.min(_columns.started_at).label("started_at"),
            func.max(_columns.ended_at).label("ended_at"),
            last_active.label("last_active_at"),
            func.max(case((_columns.has_prompt, _columns.started_at))).label("prompted_at"),
            func.count().label("interceptions"),
            func.count(case((_columns.thread_root_id.is_(None), 1))).label("threads"),
            func.count(case((_columns.outcome != "completed", 1))).label("failures"),
        )
        .select_from(interceptions.outerjoin(users, users.c.id == _columns.initiator_id))
        .where(*within)
        .group_by(*_key)
    )


def _token_totals(within: Sequence[ColumnElement[Any]]) -> Any:
    tokens = token_usages.c
    sums = [func.sum(tokens[name]).label(name) for name in (*_FIGURES, "cost_micros")]
    joined = interceptions.join(token_usages, tokens.interception_id == _columns.id)
    return select(*_key, *sums).select_from(joined).where(*within).group_by(*_key)


async def _add_ends(
    connection: AsyncConnection,
    facts: Sequence[ColumnElement[Any]],
    totals: Sequence[_Total],
    found: Mapping[Key, _JsonObject],
) -> None:
    """Put into summaries what the first row of each says, and the last prompt."""
    begins = {Key(row.session_id, row.initiator_id): row.started_at for row in totals}
    prompts = {Key(row.session_id, row.initiator_id): row.prompted_at for row in totals if row.prompted_at is not None}
    # By the times themselves, which the index of sessions has: ranking would read every row of each session. Times of one session
    # that another one's row happens to have come along. Bounds of time would say no more, and lead SQLite to read a week of a client.
    times = sorted({*begins.values(), *prompts.values()})
    statement = select(*_key, _columns.id, _columns.started_at, _columns.has_prompt, _columns.client, _columns.metadata)
    last: dict[Key, str] = {}
    first: dict[Key, str] = {}
    of_keys = among(list(begins))
    for piece in in_statements(times):
        at_times = _columns.started_at.in_(piece)
        for row in await connection.execute(statement.where(*facts, of_keys, at_times).order_by(_columns.id)):
            key = Key(row.session_id, row.initiator_id)
            if row.started_at == begins.get(key) and key not in first:
                first[key] = row.id
                found[key] |= {"client": row.client, "metadata": row.metadata}
            if row.has_prompt and row.started_at == prompts.get(key):
                last[key] = row.id
    prompt_of: dict[str, str] = {}
    columns = user_prompts.c
    for ids in in_pieces(last.values()):
        rows = await connection.execute(select(columns.interception_id, columns.prompt).where(columns.interception_id.in_(ids)))
        prompt_of.update({row[0]: row[1] for row in rows})
    for key, id_ in last.items():
        found[key]["last_prompt"] = prompt_of.get(id_)


def _summary(row: _Total) -> _JsonObject:
    name = row.name or ""
    return {
        "id": row.session_id,
        "initiator": {"id": row.initiator_id, "username": name, "name": name, "avatar_url": ""},
        "providers": [],
        "models": [],
        "client": "Unknown",
        "metadata": {},
        "started_at": text_of_time(row.started_at),
        "ended_at": text_of_time(row.ended_at),
        "threads": row.threads,
        "interceptions": row.interceptions,
        "failures": row.failures,
        "token_usage_summary": dict.fromkeys(_FIGURES, 0),
        "cost_micros": None,
        "last_prompt": None,
        "last_active_at": text_of_time(row.last_active_at),
        # Coder's agent firewall counts these; there is none here.
        "network_calls": {"total": 0, "blocked": 0},
    }


def _insert(values: list[str], value: str) -> None:
    if value and value not in values:
        values.append(value)
        values.sort()


def text_of_time(value: datetime) -> str:
    """Return a time in UTC as RFC 3339."""
    return value.isoformat().replace("+00:00", "Z")
