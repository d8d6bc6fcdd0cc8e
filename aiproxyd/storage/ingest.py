"""Writes what `rows` made of a run of journal lines: few statements a batch, each for many rows, inside the caller's transaction.

Facts: one statement for many rows costs SQLite about 5 µs a row, one statement a row fifty times that; on PostgreSQL every
statement is a round trip.
"""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Table, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.model.observation import Observation
from aiproxyd.pricing import Pricer
from aiproxyd.storage.costs import FACTS, price_tokens
from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.figures import keeping_figures
from aiproxyd.storage.lineage import link_threads
from aiproxyd.storage.rows import Changes, Known, Row, changes_of, interceptions_of
from aiproxyd.storage.statements import among, execute_many, insert_into, insert_new, upsert
from aiproxyd.storage.tables import (
    interceptions,
    journal_positions,
    model_thoughts,
    token_usages,
    tool_usages,
    unknown_events,
    user_prompts,
    users,
)

# What a later report of the same response changes.
_REPORTED = (
    "provider_response_id",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "cost_micros",
    "price_source",
    "price_version",
    "cost_basis",
    "cost_details",
    "metadata",
    "created_at",
)

_of_key = interceptions.c.id == bindparam("key")
_DESCRIBE = update(interceptions).where(_of_key)
# The first end wins.
_END = update(interceptions).where(_of_key, interceptions.c.ended_at.is_(None))
_SWITCH_KEY = update(interceptions).where(_of_key, interceptions.c.ended_at.is_(None))
_FIND_KNOWN = select(
    interceptions.c.id, interceptions.c.ended_at, interceptions.c.metadata, *(interceptions.c[name] for name in FACTS)
).where(among(interceptions.c.id))
_ANSWER_PROMPT = update(user_prompts).where(user_prompts.c.interception_id == bindparam("key"))


async def ingest(
    connection: AsyncConnection,
    lines: Sequence[tuple[str, Observation]],
    seen_users: Mapping[str, Row],
    pricer: Pricer | None = None,
) -> Changes:
    """Write what `lines` change, and return it.

    Args:
        connection: In a transaction.
        lines: Worker id and observation, in order within each worker.
        seen_users: Users as they are known to stand in the store, by id; they are written again only when they differ.
        pricer: Knows what a response costs; without one the rows have no cost.

    Raises:
        SQLAlchemyError: The database refused; the transaction is to be rolled back.
        ValueError: A value of a line cannot be stored.
        OverflowError: Neither can a number.
    """
    begun, spoken_of = interceptions_of(lines)
    async with keeping_figures(connection, spoken_of) as keeping:
        there = await _known(connection, begun | spoken_of)
        # One that is there and begins again: a line that came before.
        await keeping.touch(begun & there.keys())
        known = {id_: there[id_] for id_ in spoken_of & there.keys()}
        changes = changes_of(lines, known)
        if pricer is not None:
            price_tokens(changes, known, pricer)
        keeping.will_insert({id_: row for id_, row in changes.started.items() if id_ not in there}, changes.tokens)
        await _write(connection, changes, seen_users)
        await link_threads(connection, changes, keeping.touch)
    return changes


async def _write(connection: AsyncConnection, changes: Changes, seen_users: Mapping[str, Row]) -> None:
    # Sorted: daemons that share a PostgreSQL insert in one order, or they could wait for each other in a ring.
    new_users = [row for id_, row in sorted(changes.users.items()) if not _is_same_user(row, seen_users.get(id_))]
    await _upsert(connection, users, new_users, ("id",), change=("name", "groups"))
    await _insert_new(connection, interceptions, changes.started.values(), ("id",))
    await execute_many(connection, _DESCRIBE, changes.described.values())
    await execute_many(connection, _SWITCH_KEY, changes.switched_keys.values())
    await execute_many(connection, _END, changes.ended.values())
    await _upsert(connection, token_usages, changes.tokens.values(), ("interception_id", "position"), change=_REPORTED)
    await _insert_new(connection, user_prompts, changes.prompts.values(), ("interception_id",))
    await execute_many(connection, _ANSWER_PROMPT, changes.answered_prompts.values())
    await _insert_new(connection, tool_usages, changes.tools.values(), ("interception_id", "position"))
    await _insert_new(connection, model_thoughts, changes.thoughts.values(), ("interception_id", "position"))
    await _count_unknown(connection, changes.unknown.values())


async def _count_unknown(connection: AsyncConnection, rows: Collection[Row]) -> None:
    """Add to what was counted before; the first sample stays."""
    if rows:
        statement = insert_into(connection.dialect.name, unknown_events)
        columns, new = unknown_events.c, statement.excluded
        # In one order, as users are.
        ordered = sorted(rows, key=lambda row: (row["provider"], row["api"], row["kind"]))
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=("provider", "api", "kind"),
                set_={
                    "count": columns.count + new.count,
                    "sample": func.coalesce(columns.sample, new.sample),
                    "first_seen_at": case(
                        (new.first_seen_at < columns.first_seen_at, new.first_seen_at), else_=columns.first_seen_at
                    ),
                    "last_seen_at": case(
                        (new.last_seen_at > columns.last_seen_at, new.last_seen_at), else_=columns.last_seen_at
                    ),
                },
            ),
            ordered,
        )


async def save_positions(connection: AsyncConnection, daemon_id: str, positions: dict[str, int]) -> None:
    """Save how far the journal is applied."""
    rows = [{"daemon_id": daemon_id, "segment": segment, "position": position} for segment, position in positions.items()]
    await _upsert(connection, journal_positions, rows, ("daemon_id", "segment"), change=("position",))


async def _known(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Known]:
    known = {}
    for piece in in_pieces(ids):
        for id_, ended_at, metadata, *facts in await connection.execute(_FIND_KNOWN, {"ids": piece}):
            known[id_] = Known(ended_at is not None, metadata, dict(zip(FACTS, facts, strict=True)))
    return known


async def _insert_new(connection: AsyncConnection, table: Table, rows: Collection[Row], key: tuple[str, ...]) -> None:
    await execute_many(connection, insert_new(connection.dialect.name, table, key), rows)


async def _upsert(
    connection: AsyncConnection, table: Table, rows: Collection[Row], key: tuple[str, ...], *, change: tuple[str, ...]
) -> None:
    await execute_many(connection, upsert(connection.dialect.name, table, key, change), rows)


def _is_same_user(row: Row, seen: Row | None) -> bool:
    return seen is not None and row["name"] == seen["name"] and row["groups"] == seen["groups"]
