"""Which interceptions a reading is about: one set of conditions for lists, sessions, usage and export. No statement of its own
but the look-up of users by name.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.model.outcome import Outcome
from aiproxyd.storage.rows import storable
from aiproxyd.storage.tables import NOT_COMPLETED, interceptions, users

# Conditions that are named as their columns.
_NAMES = ("provider", "provider_name", "model", "client", "session_id", "outcome")


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

    def __post_init__(self) -> None:
        # What the store cannot hold it holds in another form, and is looked for in that form.
        for name in ("initiator", *_NAMES):
            object.__setattr__(self, name, storable(getattr(self, name)))


async def user_ids(connection: AsyncConnection, word: str) -> list[str]:
    """Return the ids of users with this name or id."""
    rows = await connection.execute(select(users.c.id).where(or_(users.c.name == word, users.c.id == word)))
    return [row.id for row in rows]


async def conditions_of(
    connection: AsyncConnection, selection: Selection, table: Table = interceptions, *, of_time: bool = True
) -> list[ColumnElement[Any]]:
    """Return `selection` as conditions on a table.

    Args:
        connection: Only reads.
        selection: What holds.
        table: `interceptions`, or one with the same columns; without a session id when it has none.
        of_time: Whether the bounds of time are among the conditions.
    """
    columns = table.c
    conditions: list[ColumnElement[Any]] = []
    if selection.initiator:
        ids = await user_ids(connection, selection.initiator)
        # One in nearly every case, and equality keeps the index in order.
        conditions.append(columns.initiator_id == ids[0] if len(ids) == 1 else columns.initiator_id.in_(ids))
    named = ((name, getattr(selection, name)) for name in _NAMES)
    conditions += [columns[name] == value for name, value in named if value]
    if table is interceptions and selection.outcome not in {"", Outcome.COMPLETED}:
        conditions.append(NOT_COMPLETED)  # type: ignore[arg-type]  # a clause as good as any
    if of_time and selection.started_after is not None:
        conditions.append(columns.started_at >= selection.started_after.astimezone(UTC))
    if of_time and selection.started_before is not None:
        conditions.append(columns.started_at <= selection.started_before.astimezone(UTC))
    return conditions
