"""The store's tables, as they are at the newest migration. No statements here, and no rows: ingest and queries use the tables
of SQLAlchemy behind the classes (`interceptions`, `token_usages`, …), because classes a row cost more than the row.

Decisions:

* Ids are text. They come from journals; one that is no UUID must not hold up the others.
* Times are UTC. SQLite keeps them as text that sorts by time.
* Child rows are identified by their interception and their place in it, which a line of the journal names; the ids that lists
  show are made from the two. Child rows go with their interception. Who asked (`initiator_id`) is not a foreign key: users come from several places.
"""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, ForeignKey, Index, MetaData, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel


class _TimeText(sqlite.DATETIME):
    """SQLite's text of a time in UTC. SQLAlchemy's own writes and reads the same text, by a function of Python."""

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:  # noqa: ARG002
        """Return what makes a time text."""
        return _text_of

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], datetime | None]:  # noqa: ARG002
        """Return what makes text a time again."""
        return _time_of


# The three times of a request are written to ten columns: those of the largest batch are remembered until its last table.
@functools.lru_cache(maxsize=4096)
def _text_of(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is not None:
        # Without an offset, which takes twice as long to write.
        value = (value if value.tzinfo is UTC else value.astimezone(UTC)).replace(tzinfo=None)
    return value.isoformat(" ", "microseconds")


def _time_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A time with time zone; SQLite knows none, and gives back what was UTC as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's type."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_TimeText())  # type: ignore[no-untyped-call]  # as SQLAlchemy's class has it
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the time in UTC."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Document = JSON().with_variant(JSONB(), "postgresql")
"""A JSON object, or for groups an array of strings."""

MaybeDocument = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""The same, or null."""

_STILL_OPEN = text("ended_at IS NULL")
NOT_COMPLETED = text("outcome <> 'completed'")
"""A condition in the very words of the index, by which SQLite knows that it may use it."""

_STILL_UNLINKED = text("correlating_tool_call_id IS NOT NULL AND thread_parent_id IS NULL")


class _Row(SQLModel):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )


def _document() -> Any:
    return Field(default_factory=dict, sa_column=Column("metadata", Document, nullable=False))


def _of_interception() -> Any:
    return Field(sa_column=Column(Text, ForeignKey("interceptions.id", ondelete="CASCADE"), primary_key=True))


class Interception(_Row, table=True):
    """One decrypted request to an intercepted endpoint and its response."""

    __tablename__ = "interceptions"
    __table_args__ = (
        # Lists are newest first, with the id to make the order total; each filter has it behind its own column.
        Index("ix_interceptions_started_at_id", "started_at", "id"),
        Index("ix_interceptions_initiator_id", "initiator_id", "started_at"),
        Index("ix_interceptions_provider", "provider", "started_at"),
        Index("ix_interceptions_provider_name", "provider_name", "started_at"),
        Index("ix_interceptions_model", "model", "started_at"),
        Index("ix_interceptions_client", "client", "started_at"),
        # The two that are most often asked for together: a user's rare model would be looked for among all that the user did.
        Index("ix_interceptions_initiator_id_model", "initiator_id", "model", "started_at"),
        Index("ix_interceptions_session_id", "session_id", "started_at"),
        Index("ix_interceptions_thread_root_id", "thread_root_id"),
        Index("ix_interceptions_outcome", "outcome", "started_at", sqlite_where=NOT_COMPLETED, postgresql_where=NOT_COMPLETED),
        # What a dead worker left open, and what waits for the tool call it answers: few rows of many.
        Index("ix_interceptions_open", "worker_id", sqlite_where=_STILL_OPEN, postgresql_where=_STILL_OPEN),
        Index(
            "ix_interceptions_unlinked",
            "correlating_tool_call_id",
            sqlite_where=_STILL_UNLINKED,
            postgresql_where=_STILL_UNLINKED,
        ),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    worker_id: str = Field(sa_type=Text)
    """Which start of which worker carried it."""
    connection_id: str = Field(sa_type=Text)
    initiator_id: str = Field(sa_type=Text)
    provider: str = Field(sa_type=Text)
    """The provider's type."""
    provider_name: str = Field(sa_type=Text)
    """The name of its entry in the configuration."""
    api: str = Field(sa_type=Text)
    method: str = Field(sa_type=Text)
    route: str = Field(sa_type=Text)
    host: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    """The model that was asked for; empty until the request is described."""
    streaming: bool
    client: str = Field(sa_type=Text)
    client_version: str = Field(sa_type=Text)
    user_agent: str = Field(sa_type=Text)
    client_request_id: str = Field(sa_type=Text)
    client_session_id: str | None = Field(sa_type=Text)
    session_id: str = Field(sa_type=Text)
    """The client's session id, else the root of the thread, else its own id."""
    correlating_tool_call_id: str | None = Field(sa_type=Text)
    """The tool call that the request answers."""
    thread_parent_id: str | None = Field(sa_type=Text)
    """The interception that made that call."""
    thread_root_id: str | None = Field(sa_type=Text)
    """The first interception of the thread; null for the first itself."""
    credential_kind: str = Field(sa_type=Text)
    credential_hint: str = Field(sa_type=Text)
    billing: str = Field(sa_column=Column("billing", Text, nullable=False, server_default="metered"))
    """`metered` or `subscription`."""
    has_prompt: bool
    """Whether there was a prompt, kept or not."""
    started_at: datetime = Field(sa_type=UtcDateTime)
    described_at: datetime | None = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(sa_type=UtcDateTime)
    outcome: str | None = Field(sa_type=Text)
    usage_source: str | None = Field(sa_type=Text)
    status_code: int | None
    response_id: str = Field(sa_type=Text)
    response_model: str = Field(sa_type=Text)
    finish_reason: str = Field(sa_type=Text)
    error_type: str | None = Field(sa_type=Text)
    error_message: str | None = Field(sa_type=Text)
    request_anomaly: str = Field(sa_type=Text)
    response_anomaly: str = Field(sa_type=Text)
    request_bytes: int = Field(sa_type=BigInteger)
    response_bytes: int = Field(sa_type=BigInteger)
    first_byte_seconds: float | None
    first_output_seconds: float | None
    duration_seconds: float | None
    output_characters: int = Field(sa_type=BigInteger)
    metadata_: dict[str, str] = _document()


class TokenUsage(_Row, table=True):
    """What one response cost. Input, cache reads and cache writes are disjoint; output contains reasoning."""

    __tablename__ = "token_usages"

    interception_id: str = _of_interception()
    position: int = Field(primary_key=True)
    """Order of the response within its interception; 0 but for connections that carry several."""
    provider_response_id: str = Field(sa_type=Text)
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cache_read_input_tokens: int = Field(sa_type=BigInteger)
    cache_write_input_tokens: int = Field(sa_type=BigInteger)
    cost_micros: int | None = Field(sa_type=BigInteger)
    """Micro-USD; null when it is not known."""
    price_source: str | None = Field(sa_type=Text)
    price_version: str | None = Field(sa_type=Text)
    cost_basis: str | None = Field(sa_type=Text)
    """`list_price`, or `list_price_equivalent` where a plan pays and the amount is a comparison."""
    cost_details: dict[str, Any] | None = Field(sa_column=Column("cost_details", MaybeDocument, nullable=True))
    """The parts of the amount, each with units and rate, the list's name of the model, and the tier."""
    cost_history: list[dict[str, Any]] | None = Field(sa_column=Column("cost_history", MaybeDocument, nullable=True))
    """What the row cost before it was priced again, oldest first."""
    metadata_: dict[str, Any] = _document()
    created_at: datetime = Field(sa_type=UtcDateTime)


class UserPrompt(_Row, table=True):
    """The last user prompt of a request."""

    __tablename__ = "user_prompts"

    interception_id: str = _of_interception()
    provider_response_id: str = Field(sa_type=Text)
    prompt: str = Field(sa_type=Text)
    metadata_: dict[str, Any] = _document()
    created_at: datetime = Field(sa_type=UtcDateTime)


class ToolUsage(_Row, table=True):
    """A tool call of a response."""

    __tablename__ = "tool_usages"
    __table_args__ = (Index("ix_tool_usages_provider_tool_call_id", "provider_tool_call_id", "created_at"),)

    interception_id: str = _of_interception()
    position: int = Field(primary_key=True)
    provider_response_id: str = Field(sa_type=Text)
    provider_tool_call_id: str = Field(sa_type=Text)
    provider_item_id: str = Field(sa_type=Text)
    tool: str = Field(sa_type=Text)
    tool_kind: str = Field(sa_type=Text)
    server_url: str = Field(sa_type=Text)
    input: str | None = Field(sa_type=Text)
    """JSON, or free text for a custom tool; null when it is not kept."""
    truncated: bool
    injected: bool
    invocation_error: str | None = Field(sa_type=Text)
    metadata_: dict[str, Any] = _document()
    created_at: datetime = Field(sa_type=UtcDateTime)


class ModelThought(_Row, table=True):
    """A piece of a model's reasoning."""

    __tablename__ = "model_thoughts"

    interception_id: str = _of_interception()
    position: int = Field(primary_key=True)
    content: str = Field(sa_type=Text)
    metadata_: dict[str, Any] = _document()
    created_at: datetime = Field(sa_type=UtcDateTime)


class User(_Row, table=True):
    """Somebody who was seen as a principal, or who has a token of the store, or both."""

    __tablename__ = "users"
    __table_args__ = (Index("ix_users_name", "name"), UniqueConstraint("token_sha256"))

    id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(sa_type=Text)
    groups: list[str] = Field(default_factory=list, sa_column=Column("groups", Document, nullable=False))
    token_sha256: str | None = Field(sa_type=Text)
    """Lower-case hex of the token's SHA-256; null when the user has no token of the store."""
    created_at: datetime = Field(sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(sa_type=UtcDateTime)


class UnknownEvent(_Row, table=True):
    """Something in responses that their parser does not know."""

    __tablename__ = "unknown_events"

    provider: str = Field(primary_key=True, sa_type=Text)
    """The name of its entry in the configuration."""
    api: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(primary_key=True, sa_type=Text)
    count: int = Field(sa_type=BigInteger)
    """How often it was met."""
    sample: str | None = Field(sa_type=Text)
    """The shape of the first one that could be had, without anything that anybody said."""
    first_seen_at: datetime = Field(sa_type=UtcDateTime)
    last_seen_at: datetime = Field(sa_type=UtcDateTime)


class UsageRollup(_Row, table=True):
    """Figures of the interceptions of a day that agree in everything a report sums up by."""

    __tablename__ = "usage_rollups"
    __table_args__ = (
        Index("ix_usage_rollups_day", "day"),
        Index("ix_usage_rollups_initiator_id", "initiator_id", "day"),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    """A digest of the eight columns behind it."""
    day: str = Field(sa_type=Text)
    """On which they began, in UTC: `2026-01-31`."""
    initiator_id: str = Field(sa_type=Text)
    provider: str = Field(sa_type=Text)
    provider_name: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    client: str = Field(sa_type=Text)
    project: str = Field(sa_type=Text)
    """What the client says it works on; empty when it does not."""
    outcome: str = Field(sa_type=Text)
    """Empty for those under way."""
    requests: int = Field(sa_type=BigInteger)
    kept: int = Field(sa_type=BigInteger)
    """How many of them are still stored as records."""
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cache_read_input_tokens: int = Field(sa_type=BigInteger)
    cache_write_input_tokens: int = Field(sa_type=BigInteger)
    cost_micros: int = Field(sa_type=BigInteger)
    """Sum of the costs that are known."""
    priced: int = Field(sa_type=BigInteger)
    """Responses whose cost is known."""
    unpriced: int = Field(sa_type=BigInteger)
    """Responses whose cost is not."""


class SessionPart(_Row, table=True):
    """The ended interceptions of a session that began on one day and agree in everything a list of sessions is filtered by."""

    __tablename__ = "session_parts"
    __table_args__ = (
        # Lists are in descending order of activity; with the session's key an index says all that a walk or a count needs.
        Index("ix_session_parts_active_at", "active_at", "session_key"),
        Index("ix_session_parts_session_key", "session_key"),
        Index("ix_session_parts_initiator_id", "initiator_id", "active_at", "session_key"),
        Index("ix_session_parts_provider", "provider", "active_at", "session_key"),
        Index("ix_session_parts_provider_name", "provider_name", "active_at", "session_key"),
        Index("ix_session_parts_model", "model", "active_at", "session_key"),
        Index("ix_session_parts_client", "client", "active_at", "session_key"),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    """A digest of the seven columns behind the next."""
    session_key: int = Field(sa_type=BigInteger)
    """A digest of session and user."""
    session_id: str = Field(sa_type=Text)
    initiator_id: str = Field(sa_type=Text)
    day: str = Field(sa_type=Text)
    """On which they began, in UTC: `2026-01-31`."""
    provider: str = Field(sa_type=Text)
    provider_name: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    client: str = Field(sa_type=Text)
    active_at: datetime = Field(sa_type=UtcDateTime)
    """`prompted_at`, else `started_at`."""
    started_at: datetime = Field(sa_type=UtcDateTime)
    """Start of the first one."""
    last_started_at: datetime = Field(sa_type=UtcDateTime)
    prompted_at: datetime | None = Field(sa_type=UtcDateTime)
    """Start of the last one with a prompt."""
    ended_at: datetime = Field(sa_type=UtcDateTime)
    """End of the one that ended last."""
    interceptions: int = Field(sa_type=BigInteger)
    threads: int = Field(sa_type=BigInteger)
    failures: int = Field(sa_type=BigInteger)
    """How many did not complete."""
    input_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    cache_read_input_tokens: int = Field(sa_type=BigInteger)
    cache_write_input_tokens: int = Field(sa_type=BigInteger)
    cost_micros: int = Field(sa_type=BigInteger)
    """Sum of the costs that are known."""
    priced: int = Field(sa_type=BigInteger)
    """Responses whose cost is known."""


class JournalPosition(_Row, table=True):
    """How far a daemon's journal is applied."""

    __tablename__ = "journal_positions"

    daemon_id: str = Field(primary_key=True, sa_type=Text)
    segment: str = Field(primary_key=True, sa_type=Text)
    position: int = Field(sa_type=BigInteger)


schema: MetaData = _Row.metadata
interceptions: Table = schema.tables["interceptions"]
token_usages: Table = schema.tables["token_usages"]
user_prompts: Table = schema.tables["user_prompts"]
tool_usages: Table = schema.tables["tool_usages"]
model_thoughts: Table = schema.tables["model_thoughts"]
users: Table = schema.tables["users"]
journal_positions: Table = schema.tables["journal_positions"]
usage_rollups: Table = schema.tables["usage_rollups"]
session_parts: Table = schema.tables["session_parts"]
unknown_events: Table = schema.tables["unknown_events"]
