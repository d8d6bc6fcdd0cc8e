"""Deletes what is older than it is to be kept, a little at a time: content, records, figures, samples of unknown events.

Facts:

* A deletion is a write, and while it lasts nobody else writes to SQLite. A batch is therefore as large as the ones before it
  allow: `BatchSize` aims at a fifth of the 50 ms that a transaction may last.
* What a record says goes before the record, where content is kept shorter: prompt, reasoning, tool arguments, error messages. Names of
  tools, tokens and costs stay.
* The figures of deleted records stay in the rollups (`rollups.forget_records`) until those are deleted by an age of their own.
* SQLite puts freed pages into a list and uses them again. `give_back` moves the file's last pages there, a few at a time, and
  cuts the file; it needs a file that was made with `auto_vacuum`, as ours are. PostgreSQL's autovacuum frees pages for its own use.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.counted import lock_interceptions
from aiproxyd.storage.figures import forgetting_records
from aiproxyd.storage.tables import interceptions, model_thoughts, tool_usages, unknown_events, usage_rollups, user_prompts

MAX_HOLD_SECONDS: Final = 0.05
"""How long a transaction may keep others from writing."""

AIMED_SECONDS: Final = 0.01
"""What a batch is sized for: a disk is not always as quick as it was."""

# Records that are looked through for content at once, without keeping anybody from writing.
_LOOKED_THROUGH = 1000

_NOTHING = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is to go: everything that began before a time; None keeps."""

    records_before: dt.datetime | None = None
    content_before: dt.datetime | None = None
    figures_before: dt.datetime | None = None
    """Whole days before this one."""

    @classmethod
    def by_age(cls, now: dt.datetime, *, records: float, content: float, figures: float) -> Self:
        """Return what is too old at `now`.

        Args:
            now: In UTC.
            records: Age in seconds at which records go; 0 keeps them.
            content: The same for what they say; 0 is as long as the records.
            figures: The same for figures by day, which never go before the records.
        """

        def before(seconds: float) -> dt.datetime | None:
            if not seconds:
                return None
            reach = (now - _NOTHING).total_seconds()
            return now - dt.timedelta(seconds=seconds) if seconds < reach else None

        kept_records = before(records)
        kept_figures = before(figures)
        if kept_figures is not None and kept_records is not None:
            kept_figures = min(kept_figures, kept_records)
        return cls(
            records_before=kept_records,
            content_before=before(content),
            figures_before=kept_figures if records else None,
        )


@dataclass(slots=True)
class Pruned:
    """How much went, or would go."""

    interceptions: int = 0
    contents: int = 0
    """Records that lost what they said and stay."""
    unknown_events: int = 0
    figures: int = 0
    """Rows of figures by day."""
    freed_bytes: int = 0
    """By which the database's file became smaller."""
    longest_seconds: float = 0.0
    """The longest transaction, from when it had the lock."""

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self) if field.name != "longest_seconds")


class BatchSize:
    """How many rows the next transaction takes, by what the ones before it took. Pure; the clock is elsewhere."""

    def __init__(self, first: int = 20, *, most: int = 5000, aimed_seconds: float = AIMED_SECONDS) -> None:
        """Begin with `first` rows and never take more than `most`."""
        self.rows = first
        self._most = most
        self._aimed_seconds = aimed_seconds

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a transaction of `rows` rows: too long, and the next is smaller at once; quick, and it grows by half at most.

        It shrinks to an eighth at most: one that only waited for a processor must not make the next ten tiny.
        """
        fitting = int(max(rows, 1) * self._aimed_seconds / max(seconds, 1e-6))
        self.rows = max(1, min(max(fitting, rows // 8), self.rows + self.rows // 2 + 1, self._most))


Place = tuple[dt.datetime, str]
"""Start and id of a record; records go in this order."""


async def delete_records(connection: AsyncConnection, before: dt.datetime, limit: int) -> int:
    """Delete the oldest records that began before a time, at most `limit`, and return how many."""
    columns = interceptions.c
    oldest = select(columns.id).where(columns.started_at < before).order_by(columns.started_at, columns.id).limit(limit)
    ids = list((await connection.execute(oldest)).scalars())
    if not ids:
        return 0
    async with forgetting_records(connection, ids):
        # What belongs to them goes along.
        return int((await connection.execute(delete(interceptions).where(columns.id.in_(ids)))).rowcount)


async def records_with_content(
    connection: AsyncConnection, after: Place | None, before: dt.datetime
) -> tuple[list[str], Place | None]:
    """Return the ids of some records that began before a time and still say something, and where to go on; None at the end.

    Args:
        connection: Only reads.
        after: Where the look before ended; None for the oldest.
        before: Records from this time on are left alone.
    """
    columns = interceptions.c
    place = tuple_(columns.started_at, columns.id)
    page = select(columns.id, columns.started_at, _has_content().label("has_content")).where(columns.started_at < before)
    if after is not None:
        page = page.where(place > after)
    rows = (await connection.execute(page.order_by(columns.started_at, columns.id).limit(_LOOKED_THROUGH))).all()
    end = (rows[-1].started_at, rows[-1].id) if len(rows) == _LOOKED_THROUGH else None
    return [row.id for row in rows if row.has_content], end


def _has_content() -> ColumnElement[bool]:
    columns, tools = interceptions.c, tool_usages.c
    return or_(
        columns.error_message.is_not(None),
        exists().where(user_prompts.c.interception_id == columns.id),
        exists().where(model_thoughts.c.interception_id == columns.id),
        exists().where(tools.interception_id == columns.id, or_(tools.input.is_not(None), tools.invocation_error.is_not(None))),
    )


async def delete_content(connection: AsyncConnection, ids: Sequence[str]) -> int:
    """Delete what the records `ids` say, and return how many they are."""
    columns, tools = interceptions.c, tool_usages.c
    # What belongs to them has no order in which it is locked.
    await lock_interceptions(connection, ids)
    await connection.execute(delete(user_prompts).where(user_prompts.c.interception_id.in_(ids)))
    await connection.execute(delete(model_thoughts).where(model_thoughts.c.interception_id.in_(ids)))
    says = or_(tools.input.is_not(None), tools.invocation_error.is_not(None))
    await connection.execute(
        update(tool_usages).where(and_(tools.interception_id.in_(ids), says)).values(input=None, invocation_error=None)
    )
    await connection.execute(
        update(interceptions).where(columns.id.in_(ids), columns.error_message.is_not(None)).values(error_message=None)
    )
    return len(ids)


async def are_unknown_events_old(connection: AsyncConnection, before: dt.datetime) -> bool:
    """Return whether anything was last met before a time."""
    statement = select(unknown_events.c.kind).where(unknown_events.c.last_seen_at < before).limit(1)
    return (await connection.execute(statement)).first() is not None


async def delete_unknown_events(connection: AsyncConnection, before: dt.datetime) -> int:
    """Delete what was last met before a time; a few rows a parser."""
    statement = delete(unknown_events).where(unknown_events.c.last_seen_at < before)
    return int((await connection.execute(statement)).rowcount)


async def figures_with(connection: AsyncConnection, condition: ColumnElement[bool]) -> list[str]:
    """Return the ids of some rollups for which `condition` holds.

    Args:
        connection: Only reads: where few of a hundred thousand hold, the look for them takes as long as a lock may last.
        condition: Which ones.
    """
    statement = select(usage_rollups.c.id).where(condition).limit(_LOOKED_THROUGH)
    return list((await connection.execute(statement)).scalars())


async def delete_figures(connection: AsyncConnection, ids: Sequence[str], condition: ColumnElement[bool]) -> int:
    """Delete those of the rollups `ids` for which `condition` still holds, and return how many."""
    columns = usage_rollups.c
    # In one order, as they are written.
    await connection.execute(select(columns.id).where(columns.id.in_(ids)).order_by(columns.id).with_for_update())
    statement = delete(usage_rollups).where(columns.id.in_(ids), condition)
    return int((await connection.execute(statement)).rowcount)


def figures_to_go(before: dt.datetime) -> ColumnElement[bool]:
    """Return which figures are too old. Those of records that are still there stay with them."""
    return and_(usage_rollups.c.day < before.astimezone(dt.UTC).date().isoformat(), usage_rollups.c.kept == 0)


def empty_figures(now: dt.datetime) -> ColumnElement[bool]:
    """Return the rows that stand for nothing any more: what they counted got its model, or ended. Today's may fill again."""
    columns = usage_rollups.c
    yesterday = (now.astimezone(dt.UTC) - dt.timedelta(days=1)).date().isoformat()
    return and_(columns.day < yesterday, columns.requests == 0, columns.kept == 0)


async def would_go(connection: AsyncConnection, retention: Retention) -> Pruned:
    """Return how much is too old, and delete nothing."""
    columns = interceptions.c

    async def count(statement: Any) -> int:
        return int((await connection.execute(statement)).scalar_one())

    found = Pruned()
    counted = select(func.count())
    if retention.records_before is not None:
        found.interceptions = await count(
            counted.select_from(interceptions).where(columns.started_at < retention.records_before)
        )
        stale = unknown_events.c.last_seen_at < retention.records_before
        found.unknown_events = await count(counted.select_from(unknown_events).where(stale))
    if retention.content_before is not None:
        stays = columns.started_at >= (retention.records_before or _NOTHING)
        of_content = counted.select_from(interceptions).where(columns.started_at < retention.content_before, stays)
        found.contents = await count(of_content.where(_has_content()))
    if retention.figures_before is not None:
        found.figures = await count(counted.select_from(usage_rollups).where(figures_to_go(retention.figures_before)))
    return found
