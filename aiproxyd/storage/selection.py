"""Which interceptions a reading is about: one set of conditions for lists, sessions, usage and export. No statement of its own
but the look-up of users by name.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.tables import interceptions, users


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Conditions that all hold; what is None or empty lets everything through."""

    initiator: str = ""
    """Id or name of the user."""
    provider: str = ""
    """Type of the provider."""
    provider_name: str = ""
    """Name of its entry in the configuration."""
    model: str = ""
    """The model that was asked for."""
    client: str = ""
    session_id: str = ""
    outcome: str = ""
    started_after: datetime | None = None
    """Inclusive, as Coder's."""
    started_before: datetime | None = None
    """Inclusive."""


async def user_ids(connection: AsyncConnection, word: str) -> list[str]:
    """Return the ids of users with this name or id."""
    rows = await connection.execute(select(users.c.id).where(or_(users.c.name == word, users.c.id == word)))
    return [row.id for row in rows]


async def conditions_of(connection: AsyncConnection, selection: Selection) -> list[ColumnElement[Any]]:
    """Return `selection` as conditions on `interceptions`."""
    columns = interceptions.c
    conditions: list[ColumnElement[Any]] = []
    if selection.initiator:
        ids = await user_ids(connection, selection.initiator)
        # One in nearly every case, and equality keeps the index in order.
        conditions.append(columns.initiator_id == ids[0] if len(ids) == 1 else columns.initiator_id.in_(ids))
    for column, value in (
        (columns.provider, selection.provider),
        (columns.provider_name, selection.provider_name),
        (columns.model, selection.model),
        (columns.client, selection.client),
        (columns.session_id, selection.session_id),
        (columns.outcome, selection.outcome),
    ):
        if value:
            conditions.append(column == value)
    if selection.started_after is not None:
        conditions.append(columns.started_at >= selection.started_after.astimezone(UTC))
    if selection.started_before is not None:
        conditions.append(columns.started_at <= selection.started_before.astimezone(UTC))
    return conditions
