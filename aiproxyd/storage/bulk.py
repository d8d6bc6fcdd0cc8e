"""Interceptions with all that belongs to them by the thousand, for exports: the records of `queries`, newest first, as structs
that are written as JSON and never looked into. Nothing is read here: `bulk_sqlite` and `bulk_postgres` do that, each by a
connection of its own and without SQLAlchemy between the driver's rows and the structs.

What makes it several times as fast as lists of dictionaries:

* A struct takes a row as it is, and encodes without looking up a key.
* Documents stay the text that the database has.
* Times are written by the encoder (PostgreSQL), or cut out of text (SQLite).
"""

from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Any, Self

import msgspec
from sqlalchemy import JSON, Column, ColumnElement, Dialect, Select, Table, Text, cast, literal_column, select, type_coerce
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType

from aiproxyd.exceptions import AiproxydError
from aiproxyd.storage.queries import KEYS, MODEL_THOUGHT, NAMED_OTHERWISE, TOKEN_USAGE, TOOL_USAGE, USER_PROMPT, id_of
from aiproxyd.storage.tables import interceptions, model_thoughts, token_usages, tool_usages, user_prompts, users

# Fields have the names and the order of the keys in `queries`, so that both encode alike. Their types say what a reader may rely
# on: a time is RFC 3339 as text, or a datetime in UTC, which is encoded as the same; a document is text of JSON, or parsed.
type Time = Any
type Document = Any


class Initiator(msgspec.Struct, gc=False):
    """Who asked."""

    id: str
    username: str
    name: str
    avatar_url: str = ""


class TokenUsage(msgspec.Struct, gc=False):
    """What one response cost."""

    id: Any
    interception_id: str
    provider_response_id: str
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    cost_micros: int | None
    price_source: str | None
    price_version: str | None
    cost_basis: str | None
    cost_details: Document
    metadata: Document
    created_at: Time


class UserPrompt(msgspec.Struct, gc=False):
    """The last user prompt of a request."""

    id: Any
    interception_id: str
    provider_response_id: str
    prompt: str
    metadata: Document
    created_at: Time


class ToolUsage(msgspec.Struct, gc=False):
    """A tool call of a response."""

    id: Any
    interception_id: str
    provider_response_id: str
    tool_call_id: str
    item_id: str
    server_url: str
    tool: str
    tool_kind: str
    input: str | None
    truncated: bool
    injected: bool
    invocation_error: str | None
    metadata: Document
    created_at: Time


class ModelThought(msgspec.Struct, gc=False):
    """A piece of a model's reasoning."""

    content: str
    metadata: Document
    created_at: Time


class Record(msgspec.Struct, gc=False):
    """An interception with all that belongs to it."""

    id: str
    api_key_id: str | None
    initiator: Initiator
    provider: str
    provider_name: str
    api: str
    method: str
    route: str
    host: str
    model: str
    response_model: str
    streaming: bool
    client: str
    client_version: str
    client_session_id: str | None
    client_request_id: str
    user_agent: str
    session_id: str
    thread_parent_id: str | None
    thread_root_id: str | None
    credential_kind: str
    credential_hint: str
    billing: str
    metadata: Document
    started_at: Time
    ended_at: Time
    outcome: str | None
    usage_source: str | None
    status_code: int | None
    provider_response_id: str
    finish_reason: str
    error_type: str | None
    error_message: str | None
    request_anomaly: str
    response_anomaly: str
    has_prompt: bool
    request_bytes: int
    response_bytes: int
    output_characters: int
    first_byte_seconds: float | None
    first_output_seconds: float | None
    duration_seconds: float | None
    token_usages: list[TokenUsage]
    user_prompts: list[UserPrompt]
    tool_usages: list[ToolUsage]
    model_thoughts: list[ModelThought]

    @classmethod
    def of(cls, document: Any) -> Self:
        """Return a record that an API answered with.

        Raises:
            AiproxydError: It is none.
        """
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as exc:
            message = f"the daemon answers with what is no record to this version: {exc}"
            raise AiproxydError(message) from exc


def _as_stored(column: Column[Any]) -> Any:
    """Return a column as the driver gives it, with nothing parsed."""
    return cast(column, Text) if isinstance(column.type, JSON) else type_coerce(column, NullType())


_NULL: ColumnElement[Any] = literal_column("NULL")
_COLUMNS = [_NULL if key == "api_key_id" else _as_stored(interceptions.c[NAMED_OTHERWISE.get(key, key)]) for key in KEYS]

SELECT = (
    select(*_COLUMNS, users.c.name)
    .outerjoin(users, users.c.id == interceptions.c.initiator_id)
    .order_by(interceptions.c.started_at.desc(), interceptions.c.id.desc())
)
"""Reads the rows that `assembled` takes; without conditions and without a limit."""


def _of_children(table: Table, names: Iterable[str]) -> Select[Any]:
    columns = table.c
    # A table without places holds one row each.
    has_place = "position" in columns
    order = (columns.interception_id, columns.position) if has_place else (columns.interception_id,)
    place = columns.position if has_place else literal_column("0")
    return select(place, *(_as_stored(columns[name]) for name in names)).order_by(*order)


CHILDREN = (
    (token_usages, _of_children(token_usages, TOKEN_USAGE)),
    (user_prompts, _of_children(user_prompts, USER_PROMPT)),
    (tool_usages, _of_children(tool_usages, TOOL_USAGE.values())),
    (model_thoughts, _of_children(model_thoughts, ("interception_id", *MODEL_THOUGHT))),
)
"""The tables whose rows `assembled` takes, in its order, and what reads all of their rows: place, and columns of the struct."""


def compiled(query: Select[Any], dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """Return a statement and its values, in order and by name, as the driver takes them."""
    made = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    assert isinstance(made, SQLCompiler)
    values: dict[str, Any] = {name: made.params[name] for name in made.positiontup or made.params}
    for name, bind in made.binds.items():
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None and name in values:
            values[name] = process(values[name])
    return str(made), values


def assembled(rows: Iterable[Sequence[Any]], children: Sequence[Iterable[Sequence[Any]]]) -> list[Record]:
    """Return records made of their rows.

    Args:
        rows: Of `SELECT`.
        children: Of each of `CHILDREN`, those that belong to the rows.
    """
    # Long and plain: it runs once for each value of an export.
    token_rows, prompt_rows, tool_rows, thought_rows = children
    tokens: dict[str, list[TokenUsage]] = {}
    for usage in starmap(TokenUsage, token_rows):
        id_ = usage.interception_id
        usage.id = id_of("token", id_, usage.id)
        usage.cost_details = _document(usage.cost_details)
        usage.metadata = _document(usage.metadata)
        usage.created_at = _time(usage.created_at)
        if id_ in tokens:
            tokens[id_].append(usage)
        else:
            tokens[id_] = [usage]
    prompts: dict[str, list[UserPrompt]] = {}
    for prompt in starmap(UserPrompt, prompt_rows):
        prompt.id = id_of("prompt", prompt.interception_id, prompt.id)
        prompt.metadata = _document(prompt.metadata)
        prompt.created_at = _time(prompt.created_at)
        prompts[prompt.interception_id] = [prompt]
    tools: dict[str, list[ToolUsage]] = {}
    for tool in starmap(ToolUsage, tool_rows):
        id_ = tool.interception_id
        tool.id = id_of("tool", id_, tool.id)
        tool.truncated = bool(tool.truncated)
        tool.injected = bool(tool.injected)
        tool.invocation_error = tool.invocation_error or ""
        tool.metadata = _document(tool.metadata)
        tool.created_at = _time(tool.created_at)
        if id_ in tools:
            tools[id_].append(tool)
        else:
            tools[id_] = [tool]
    thoughts: dict[str, list[ModelThought]] = {}
    for _, id_, content, metadata, created_at in thought_rows:
        thoughts.setdefault(id_, []).append(ModelThought(content, _document(metadata), _time(created_at)))
    initiators: dict[str, Initiator] = {}
    records = []
    for *values, name in rows:
        id_, user_id = values[0], values[2]
        belonging = (tokens.get(id_) or [], prompts.get(id_) or [], tools.get(id_) or [], thoughts.get(id_) or [])
        record = Record(*values, *belonging)  # type: ignore[call-arg]  # as many as the statement has columns
        if user_id not in initiators:
            initiators[user_id] = Initiator(user_id, name or "", name or "")
        record.initiator = initiators[user_id]
        record.streaming = bool(record.streaming)
        record.has_prompt = bool(record.has_prompt)
        record.metadata = _document(record.metadata)
        record.started_at = _time(record.started_at)
        record.ended_at = _time(record.ended_at)
        records.append(record)
    return records


def _document(text: str | None) -> msgspec.Raw | None:
    # SQL's null, or JSON's where a program wrote that.
    return None if text is None or text == "null" else msgspec.Raw(text)


def _time(value: Any) -> Any:
    # As SQLite has it: `2026-01-31 08:00:00.000000`.
    return f"{value[:10]}T{value[11:].removesuffix('.000000')}Z" if type(value) is str else value
