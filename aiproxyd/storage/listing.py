"""Reads pages of interceptions with a cursor or an offset, their count, and the values that filters can have."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.queries import interceptions_by_id, select_interceptions
from aiproxyd.storage.selection import Selection, conditions_of
from aiproxyd.storage.tables import interceptions, users
from aiproxyd.storage.usage_report import count_selected

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100

_JsonObject = dict[str, Any]

_VALUES = {
    "models": interceptions.c.model,
    "clients": interceptions.c.client,
    "providers": interceptions.c.provider,
}


async def list_page(
    connection: AsyncConnection,
    selection: Selection,
    *,
    limit: int = DEFAULT_LIMIT,
    offset: int = 0,
    after_id: str = "",
    oldest_first: bool = False,
) -> list[_JsonObject]:
    """Return interceptions with all that belongs to them, newest first.

    Args:
        connection: Only reads.
        selection: Which ones.
        limit: How many at most.
        offset: How many to leave out at the beginning.
        after_id: Go on behind this one, whatever the selection says of it.
        oldest_first: Whether the order is turned round.

    Raises:
        LookupError: `after_id` is no interception.
    """
    clauses = await _page_of(connection, selection, after_id, oldest_first=oldest_first)
    if not offset:
        return await select_interceptions(connection, lambda query: clauses(query).limit(limit))
    # What is left out is counted off in an index, without a look at the rows.
    ids = clauses(select(interceptions.c.id)).limit(limit).offset(offset)
    return await interceptions_by_id(connection, list((await connection.execute(ids)).scalars()))


async def _page_of(
    connection: AsyncConnection, selection: Selection, after_id: str, *, oldest_first: bool = False
) -> Callable[[Select[Any]], Select[Any]]:
    """Return what adds the conditions and the order of a page to a statement."""
    columns = interceptions.c
    place = tuple_(columns.started_at, columns.id)
    conditions = await conditions_of(connection, selection)
    if after_id:
        at = (await connection.execute(select(columns.started_at).where(columns.id == after_id))).scalar()
        if at is None:
            raise LookupError(after_id)
        cursor = tuple_(literal(at, columns.started_at.type), after_id)
        conditions.append(place > cursor if oldest_first else place < cursor)
    order = (columns.started_at, columns.id) if oldest_first else (columns.started_at.desc(), columns.id.desc())
    return lambda query: query.where(*conditions).order_by(*order)


async def count_interceptions(connection: AsyncConnection, selection: Selection) -> int:
    """Return how many interceptions `selection` lets through."""
    return await count_selected(connection, selection)


async def values_of(
    connection: AsyncConnection, what: str, *, prefix: str = "", limit: int = DEFAULT_LIMIT, offset: int = 0
) -> list[str]:
    """Return the different values that interceptions have, in order.

    Args:
        connection: Only reads.
        what: `models`, `clients` or `providers` (their types).
        prefix: Only those that begin so.
        limit: How many at most.
        offset: How many to leave out.

    Raises:
        KeyError: `what` is none of these.
    """
    column = _VALUES[what]
    # A loose index scan: from each value to the next one, instead of over every row.
    found: list[str] = []
    after: str | None = None
    while len(found) < limit + offset:
        query = select(func.min(column)).where(column != "")
        if after is not None:
            query = query.where(column > after)
        elif prefix:
            query = query.where(column >= prefix)
        after = (await connection.execute(query)).scalar()
        if after is None or (prefix and not after.startswith(prefix)):
            # Collations differ in what stands between values with a prefix; a value without it may not be the end.
            if after is None or connection.dialect.name == "sqlite":
                break
            continue
        found.append(after)
    return found[offset:]


async def users_seen(connection: AsyncConnection) -> list[_JsonObject]:
    """Return every user that the store knows, by name: those with a token of the store, and those who were seen."""
    columns = users.c
    query = select(
        columns.id, columns.name, columns.groups, columns.created_at, columns.revoked_at, columns.token_sha256.is_not(None)
    ).order_by(columns.name, columns.id)
    return [
        {
            "id": row.id,
            "username": row.name,
            "name": row.name,
            "groups": list(row.groups),
            "status": "revoked" if row.revoked_at is not None else "active" if row[5] else "seen",
            "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
            "revoked_at": None if row.revoked_at is None else row.revoked_at.isoformat().replace("+00:00", "Z"),
        }
        for row in await connection.execute(query)
    ]
