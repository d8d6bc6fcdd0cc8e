"""What of an interception is summed up, by day and by session: read from the store, or taken from rows that are about to be in it.

One shape for both, so that whoever sums up does not know where it comes from.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.rows import Row
from aiproxyd.storage.statements import among
from aiproxyd.storage.tables import interceptions, token_usages

TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")


class Counted(NamedTuple):
    """An interception with one of its token rows. One that has several comes several times; it is one request."""

    started_at: datetime
    """In UTC."""
    initiator_id: str
    provider: str
    provider_name: str
    model: str
    client: str
    outcome: str | None
    session_id: str
    thread_root_id: str | None
    has_prompt: bool
    ended_at: datetime | None
    project: str
    position: int | None
    """Of the token row; None when there is none."""
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    cost_micros: int | None

    @property
    def day(self) -> str:
        """The day in UTC on which the interception began, as `2026-01-31`."""
        return self.started_at.date().isoformat()

    @property
    def is_first(self) -> bool:
        """Whether this stands for its interception: of several token rows the first does, and so does having none."""
        return not self.position


_OF_INTERCEPTION: Final = Counted._fields[:11]
_OF_TOKENS: Final = (*TOKENS, "cost_micros")
_NO_TOKENS: Final = (None, 0, 0, 0, 0, None)
_COLUMNS = interceptions.c

# In one order, or two who lock could wait for each other. Not against those who only refer to the rows.
_LOCK = select(_COLUMNS.id).where(among(_COLUMNS.id)).order_by(_COLUMNS.id).with_for_update(key_share=True)


def day_of(dialect: str) -> ColumnElement[str]:
    """Return what `Counted.day` is, as an expression of a statement."""
    if dialect == "postgresql":
        return func.to_char(func.timezone("UTC", _COLUMNS.started_at), "YYYY-MM-DD")
    # Text that begins with the date.
    return func.substr(_COLUMNS.started_at, 1, 10)


def project_of() -> ColumnElement[str]:
    """Return what the client of an interception says it works on: `project`, else `repo`, of the metadata."""
    document = _COLUMNS.metadata
    return func.coalesce(document["project"].as_string(), document["repo"].as_string(), "")


_READ = (
    select(
        *(_COLUMNS[name] for name in _OF_INTERCEPTION),
        project_of(),
        token_usages.c.position,
        *(func.coalesce(token_usages.c[name], 0) for name in TOKENS),
        token_usages.c.cost_micros,
    )
    .select_from(interceptions.outerjoin(token_usages, token_usages.c.interception_id == _COLUMNS.id))
    .where(among(_COLUMNS.id))
)


async def lock_interceptions(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Have others who change the interceptions `ids` wait for the end of the transaction; SQLite has one writer."""
    if connection.dialect.name == "postgresql":
        for piece in in_pieces(ids):
            await connection.execute(_LOCK, {"ids": piece})


async def read_counted(connection: AsyncConnection, ids: Collection[str]) -> list[Counted]:
    """Return those of the interceptions `ids` that the store has."""
    found: list[Counted] = []
    for piece in in_pieces(ids):
        found += map(Counted._make, await connection.execute(_READ, {"ids": piece}))
    return found


def counted_of(rows: Iterable[Row], tokens: Mapping[str, Row]) -> Iterator[Counted]:
    """Yield what `read_counted` will return of new rows.

    Args:
        rows: Of interceptions.
        tokens: The token row of each that has one, by interception.
    """
    for row in rows:
        metadata: dict[str, Any] = row["metadata"]
        project = metadata.get("project")
        if project is None:
            project = metadata.get("repo", "")
        token = tokens.get(row["id"])
        yield Counted(
            row["started_at"],
            row["initiator_id"],
            row["provider"],
            row["provider_name"],
            row["model"],
            row["client"],
            row["outcome"],
            row["session_id"],
            row["thread_root_id"],
            row["has_prompt"],
            row["ended_at"],
            project,
            *(_NO_TOKENS if token is None else (token["position"], *(token[name] for name in _OF_TOKENS))),
        )
