"""Reads interceptions with all that belongs to them, in the shape that Coder's list has, with our additions.

Lists are newest first: by start, and by id where two started at once. A page goes on behind the last id of the one before.
"""

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Select, Table, literal, or_, select, tuple_, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.rows import storable
from aiproxyd.storage.tables import UtcDateTime, interceptions, model_thoughts, token_usages, tool_usages, user_prompts, users

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100

# Namespace of the ids that rows without an id of their own show.
_ID_NAMESPACE = uuid.UUID("2f6f0f0a-3a55-5a0d-9c1e-6d2d1c7a3b52")
_ID_NAMESPACE_BYTES = _ID_NAMESPACE.bytes

_JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionFilter:
    """Which interceptions to list; what is None or empty lets everything through."""

    initiator: str = ""
    """Id or name of the user."""
    provider: str = ""
    """Type of the provider, or name of its entry."""
    model: str = ""
    """The model that was asked for."""
    client: str = ""
    session_id: str = ""
    started_after: datetime | None = None
    """Inclusive, as Coder's."""
    started_before: datetime | None = None
    """Inclusive."""
    after_id: str = ""
    """Goes on behind this interception, whatever the other conditions say of it."""
    limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: The limit is out of range.
        """
        if not 1 <= self.limit <= MAX_LIMIT:
            message = f"limit value must be between 1 and {MAX_LIMIT}"
            raise ValueError(message)
        # What the store cannot hold it holds in another form, and is looked for in that form.
        for name in ("initiator", "provider", "model", "client", "session_id", "after_id"):
            object.__setattr__(self, name, storable(getattr(self, name)))


async def list_interceptions(connection: AsyncConnection, filter_: InterceptionFilter) -> list[_JsonObject]:
    """Return what `filter_` lets through, newest first.

    Raises:
        StorageError: `after_id` is no interception.
    """
    columns = interceptions.c
    query = _SELECT
    if filter_.initiator:
        ids = await _user_ids(connection, filter_.initiator)
        # One in nearly every case, and equality keeps the index in order.
        query = query.where(columns.initiator_id == ids[0] if len(ids) == 1 else columns.initiator_id.in_(ids))
    for column, value in (
        (columns.model, filter_.model),
        (columns.client, filter_.client),
        (columns.session_id, filter_.session_id),
    ):
        if value:
            query = query.where(column == value)
    if filter_.started_after is not None:
        query = query.where(columns.started_at >= filter_.started_after.astimezone(UTC))
    if filter_.started_before is not None:
        query = query.where(columns.started_at <= filter_.started_before.astimezone(UTC))
    if filter_.after_id:
        cursor = (await connection.execute(select(columns.started_at).where(columns.id == filter_.after_id))).first()
        if cursor is None:
            message = f"after_id: interception {filter_.after_id!r} not found"
            raise StorageError(message)
        query = query.where(tuple_(columns.started_at, columns.id) < tuple_(cursor.started_at, filter_.after_id))
    query = query.order_by(columns.started_at.desc(), columns.id.desc()).limit(filter_.limit)
    if not filter_.provider:
        return await _with_children(connection, (await connection.execute(query)).all())
    # Two lists that come in order from an index each; with OR the database would sort everything that matches.
    found = {}
    for column in (columns.provider, columns.provider_name):
        found.update({row[0]: row for row in await connection.execute(query.where(column == filter_.provider))})
    rows: Sequence[Any] = sorted(found.values(), key=lambda row: (row.started_at, row[0]), reverse=True)
    return await _with_children(connection, rows[: filter_.limit])


async def show_interception(connection: AsyncConnection, id_: str) -> _JsonObject | None:
    """Return one interception, or None."""
    rows = (await connection.execute(_SELECT.where(interceptions.c.id == id_))).all()
    return (await _with_children(connection, rows))[0] if rows else None


async def interceptions_by_id(connection: AsyncConnection, ids: Sequence[str]) -> list[_JsonObject]:
    """Return those of `ids` that there are, in their order."""
    rows = {}
    for piece in in_pieces(ids):
        rows.update({row.id: row for row in await connection.execute(_SELECT.where(interceptions.c.id.in_(piece)))})
    return await _with_children(connection, [rows[id_] for id_ in ids if id_ in rows])


async def select_interceptions(connection: AsyncConnection, clauses: Callable[[Select[Any]], Select[Any]]) -> list[_JsonObject]:
    """Return interceptions with all that belongs to them.

    Args:
        connection: Only reads.
        clauses: Adds conditions, order and limit.
    """
    return await _with_children(connection, (await connection.execute(clauses(_SELECT))).all())


def _as_stored(column: Column[Any]) -> Any:
    """Return a column as the driver gives it, where that is good enough: times of SQLite stay text, which is quicker to rewrite
    than to parse.
    """
    return type_coerce(column, NullType()).label(column.name) if isinstance(column.type, UtcDateTime) else column


# The keys of a record, in their order; but for three they are columns.
KEYS = (
    "id",
    "api_key_id",
    "initiator",
    "provider",
    "provider_name",
    "api",
    "method",
    "route",
    "host",
    "model",
    "response_model",
    "streaming",
    "client",
    "client_version",
    "client_session_id",
    "client_request_id",
    "user_agent",
    "session_id",
    "thread_parent_id",
    "thread_root_id",
    "credential_kind",
    "credential_hint",
    "billing",
    "metadata",
    "started_at",
    "ended_at",
    "outcome",
    "usage_source",
    "status_code",
    "provider_response_id",
    "finish_reason",
    "error_type",
    "error_message",
    "request_anomaly",
    "response_anomaly",
    "has_prompt",
    "request_bytes",
    "response_bytes",
    "output_characters",
    "first_byte_seconds",
    "first_output_seconds",
    "duration_seconds",
)
NAMED_OTHERWISE = {"provider_response_id": "response_id", "initiator": "initiator_id"}


_COLUMNS = [
    literal(None) if key == "api_key_id" else _as_stored(interceptions.c[NAMED_OTHERWISE.get(key, key)]) for key in KEYS
]
_SELECT = select(*_COLUMNS, users.c.name).outerjoin(users, users.c.id == interceptions.c.initiator_id)

TOKEN_USAGE = (
    "interception_id",
    "provider_response_id",
    *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"),
    *("cost_micros", "price_source", "price_version", "cost_basis", "cost_details"),
    "metadata",
    "created_at",
)
USER_PROMPT = ("interception_id", "provider_response_id", "prompt", "metadata", "created_at")
TOOL_USAGE = {
    "interception_id": "interception_id",
    "provider_response_id": "provider_response_id",
    "tool_call_id": "provider_tool_call_id",
    "item_id": "provider_item_id",
    "server_url": "server_url",
    "tool": "tool",
    "tool_kind": "tool_kind",
    "input": "input",
    "truncated": "truncated",
    "injected": "injected",
    "invocation_error": "invocation_error",
    "metadata": "metadata",
    "created_at": "created_at",
}
MODEL_THOUGHT = ("content", "metadata", "created_at")


async def _user_ids(connection: AsyncConnection, initiator: str) -> list[str]:
    """Return the ids of users with this name or id."""
    rows = await connection.execute(select(users.c.id).where(or_(users.c.name == initiator, users.c.id == initiator)))
    return [row.id for row in rows]


async def _with_children(connection: AsyncConnection, rows: Sequence[Any]) -> list[_JsonObject]:
    ids = [row[0] for row in rows]
    tokens, prompts, tools, thoughts = [await _children(connection, child, ids) for child in _CHILDREN]
    records = []
    for row in rows:
        record: _JsonObject = dict(zip(KEYS, row, strict=False))
        id_, name = record["id"], row[-1] or ""
        record["initiator"] = {"id": record["initiator"], "username": name, "name": name, "avatar_url": ""}
        record["started_at"] = time_text(record["started_at"])
        record["ended_at"] = time_text(record["ended_at"])
        record["token_usages"] = tokens.get(id_, [])
        record["user_prompts"] = prompts.get(id_, [])
        record["tool_usages"] = tools.get(id_, [])
        record["model_thoughts"] = thoughts.get(id_, [])
        records.append(record)
    return records


class _Child:
    """How the rows of a table that belong to interceptions are read."""

    def __init__(self, table: Table, kind: str, columns: Mapping[str, str]) -> None:
        """
        Args:
            table: Has `interception_id`.
            kind: Goes into the ids that are made for its rows; without one they have none.
            columns: The keys of a child, and what each is called in the table.
        """
        self.kind = kind
        self.keys = tuple(columns)
        # A table without places holds one row each.
        has_place = "position" in table.c
        place = table.c.position if has_place else literal(0)
        self._id = table.c.interception_id
        order = (self._id, place) if has_place else (self._id,)
        self._statement = select(self._id, place, *(_as_stored(table.c[name]) for name in columns.values())).order_by(*order)

    def of(self, ids: Sequence[str]) -> Select[Any]:
        """Return the statement that reads those of `ids`."""
        return self._statement.where(self._id.in_(ids))


_CHILDREN = (
    _Child(token_usages, "token", dict(zip(TOKEN_USAGE, TOKEN_USAGE, strict=True))),
    _Child(user_prompts, "prompt", dict(zip(USER_PROMPT, USER_PROMPT, strict=True))),
    _Child(tool_usages, "tool", TOOL_USAGE),
    _Child(model_thoughts, "", dict(zip(MODEL_THOUGHT, MODEL_THOUGHT, strict=True))),
)


async def _children(connection: AsyncConnection, child: _Child, ids: Sequence[str]) -> dict[str, list[_JsonObject]]:
    """Return the children of `ids`, by id."""
    children: dict[str, list[_JsonObject]] = {}
    kind, keys = child.kind, child.keys
    for piece in in_pieces(ids):
        for id_, place, *values in await connection.execute(child.of(piece)):
            found: _JsonObject = {"id": id_of(kind, id_, place)} if kind else {}
            found.update(zip(keys, values, strict=True))
            found["created_at"] = time_text(found["created_at"])
            if kind == "tool":
                found["invocation_error"] = found["invocation_error"] or ""
            children.setdefault(id_, []).append(found)
    return children


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The first digit of the fourth group of a UUID, from any digit."""


def id_of(kind: str, interception_id: str, position: int) -> str:
    """Return a UUID that is the same at every reading: `uuid.uuid5`, made in a fifth of its time."""
    name = f"{kind}:{interception_id}:{position}".encode()
    digits = hashlib.sha1(_ID_NAMESPACE_BYTES + name, usedforsecurity=False).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def time_text(value: str | datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC."""
    if isinstance(value, str):
        # As SQLite has it: `2026-01-31 08:00:00.000000`.
        return f"{value[:10]}T{value[11:].removesuffix('.000000')}Z"
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")
