"""Reads interceptions with all that belongs to them, in the shape that Coder's list has, with our additions.

Lists are newest first: by start, and by id where two started at once. A page goes on behind the last id of the one before.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Table, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.rows import storable
from aiproxyd.storage.tables import interceptions, model_thoughts, token_usages, tool_usages, user_prompts, users

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100

# Namespace of the ids that rows without an id of their own show.
_ID_NAMESPACE = uuid.UUID("2f6f0f0a-3a55-5a0d-9c1e-6d2d1c7a3b52")

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
        found.update({row.id: row for row in await connection.execute(query.where(column == filter_.provider))})
    rows = sorted(found.values(), key=lambda row: (row.started_at, row.id), reverse=True)
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


_SELECT = select(interceptions, users.c.name.label("initiator_name")).outerjoin(
    users, users.c.id == interceptions.c.initiator_id
)


async def _user_ids(connection: AsyncConnection, initiator: str) -> list[str]:
    """Return the ids of users with this name or id."""
    rows = await connection.execute(select(users.c.id).where(or_(users.c.name == initiator, users.c.id == initiator)))
    return [row.id for row in rows]


async def _with_children(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[_JsonObject]:
    ids = [row.id for row in rows]
    tokens = await _children(connection, token_usages, ids)
    prompts = await _children(connection, user_prompts, ids)
    tools = await _children(connection, tool_usages, ids)
    thoughts = await _children(connection, model_thoughts, ids)
    return [
        _interception(row)
        | {
            "token_usages": [_token_usage(child) for child in tokens[row.id]],
            "user_prompts": [_user_prompt(child) for child in prompts[row.id]],
            "tool_usages": [_tool_usage(child) for child in tools[row.id]],
            "model_thoughts": [_model_thought(child) for child in thoughts[row.id]],
        }
        for row in rows
    ]


async def _children(connection: AsyncConnection, table: Table, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    order = [table.c.interception_id, *([table.c.position] if "position" in table.c else [])]
    children = defaultdict(list)
    for piece in in_pieces(ids):
        for row in await connection.execute(select(table).where(table.c.interception_id.in_(piece)).order_by(*order)):
            children[row.interception_id].append(row)
    return children


def _interception(row: Row[Any]) -> _JsonObject:
    return {
        "id": row.id,
        "api_key_id": None,
        "initiator": {
            "id": row.initiator_id,
            "username": row.initiator_name or "",
            "name": row.initiator_name or "",
            "avatar_url": "",
        },
        "provider": row.provider,
        "provider_name": row.provider_name,
        "api": row.api,
        "method": row.method,
        "route": row.route,
        "host": row.host,
        "model": row.model,
        "response_model": row.response_model,
        "streaming": row.streaming,
        "client": row.client,
        "client_version": row.client_version,
        "client_session_id": row.client_session_id,
        "client_request_id": row.client_request_id,
        "user_agent": row.user_agent,
        "session_id": row.session_id,
        "thread_parent_id": row.thread_parent_id,
        "thread_root_id": row.thread_root_id,
        "credential_kind": row.credential_kind,
        "credential_hint": row.credential_hint,
        "billing": row.billing,
        "metadata": row.metadata,
        "started_at": _time(row.started_at),
        "ended_at": _time(row.ended_at),
        "outcome": row.outcome,
        "usage_source": row.usage_source,
        "status_code": row.status_code,
        "provider_response_id": row.response_id,
        "finish_reason": row.finish_reason,
        "error_type": row.error_type,
        "error_message": row.error_message,
        "request_anomaly": row.request_anomaly,
        "response_anomaly": row.response_anomaly,
        "has_prompt": row.has_prompt,
        "request_bytes": row.request_bytes,
        "response_bytes": row.response_bytes,
        "output_characters": row.output_characters,
        "first_byte_seconds": row.first_byte_seconds,
        "first_output_seconds": row.first_output_seconds,
        "duration_seconds": row.duration_seconds,
    }


def _token_usage(row: Row[Any]) -> _JsonObject:
    return {
        "id": _id("token", row.interception_id, row.position),
        "interception_id": row.interception_id,
        "provider_response_id": row.provider_response_id,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cache_read_input_tokens": row.cache_read_input_tokens,
        "cache_write_input_tokens": row.cache_write_input_tokens,
        "cost_micros": row.cost_micros,
        "price_source": row.price_source,
        "price_version": row.price_version,
        "cost_basis": row.cost_basis,
        "cost_details": row.cost_details,
        "metadata": row.metadata,
        "created_at": _time(row.created_at),
    }


def _user_prompt(row: Row[Any]) -> _JsonObject:
    return {
        "id": _id("prompt", row.interception_id, 0),
        "interception_id": row.interception_id,
        "provider_response_id": row.provider_response_id,
        "prompt": row.prompt,
        "metadata": row.metadata,
        "created_at": _time(row.created_at),
    }


def _tool_usage(row: Row[Any]) -> _JsonObject:
    return {
        "id": _id("tool", row.interception_id, row.position),
        "interception_id": row.interception_id,
        "provider_response_id": row.provider_response_id,
        "tool_call_id": row.provider_tool_call_id,
        "item_id": row.provider_item_id,
        "server_url": row.server_url,
        "tool": row.tool,
        "tool_kind": row.tool_kind,
        "input": row.input,
        "truncated": row.truncated,
        "injected": row.injected,
        "invocation_error": row.invocation_error or "",
        "metadata": row.metadata,
        "created_at": _time(row.created_at),
    }


def _model_thought(row: Row[Any]) -> _JsonObject:
    return {"content": row.content, "metadata": row.metadata, "created_at": _time(row.created_at)}


def _id(kind: str, interception_id: str, position: int) -> str:
    """Return a UUID that is the same at every reading."""
    return str(uuid.uuid5(_ID_NAMESPACE, f"{kind}:{interception_id}:{position}"))


def _time(value: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")
