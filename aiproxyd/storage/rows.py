"""Observations as rows: what a run of journal lines adds to the store and changes in it. Pure; no statement is made here.

Of an interception that begins in the run, all that the run says of it ends up in the one row to insert. Of one that began
earlier, the description and the end become updates.

Every value is made storable: PostgreSQL knows no NUL character and no lone surrogate, and indexes no long text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, assert_never

from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    Observation,
    ResponseProgressed,
    ThoughtRecorded,
    ToolCalled,
    UnknownEventsSeen,
)
from aiproxyd.model.outcome import MAX_ERROR_MESSAGE_BYTES, UsageSource
from aiproxyd.model.usage import MAX_TOKENS, TokenUsage

MAX_WORD_CHARACTERS = 512
"""Ids, models, tools and names are cut to this. 512 characters are at most 2,048 bytes; an index of PostgreSQL takes 2,704."""

MAX_LINE_CHARACTERS = 2048
"""User agents, URLs and explanations are cut to this."""

Row = dict[str, Any]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# Metadata of an interception's end that describes its token row.
_SERVICE_TIER = "service_tier"
_USAGE = "usage"


@dataclass(slots=True)
class Known:
    """What the store has of an interception that began before the run."""

    has_ended: bool
    metadata: dict[str, str]
    facts: Row
    """Those columns of its row that pricing asks for."""


@dataclass(slots=True)
class Changes:
    """Rows to insert and to update, by key. Inserts of one table have equal columns, and so have updates of one kind."""

    started: dict[str, Row] = field(default_factory=dict)
    described: dict[str, Row] = field(default_factory=dict)
    ended: dict[str, Row] = field(default_factory=dict)
    tokens: dict[str, Row] = field(default_factory=dict)
    prompts: dict[str, Row] = field(default_factory=dict)
    answered_prompts: dict[str, Row] = field(default_factory=dict)
    """Prompts of earlier runs whose response id is known."""
    switched_keys: dict[str, Row] = field(default_factory=dict)
    """Interceptions of earlier runs that ended with another key than they began with."""
    tools: dict[tuple[str, int], Row] = field(default_factory=dict)
    thoughts: dict[tuple[str, int], Row] = field(default_factory=dict)
    users: dict[str, Row] = field(default_factory=dict)
    reports: dict[str, ResponseProgressed | InterceptionEnded] = field(default_factory=dict)
    """What each row of `tokens` was made from."""
    unknown: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """By provider, API and kind."""
    orphans: int = 0
    """Observations of interceptions whose beginning was lost."""


def interceptions_of(lines: Iterable[tuple[str, Observation]]) -> tuple[set[str], set[str]]:
    """Return the ids of interceptions that `lines` begin, and of those that they only speak of."""
    started = set()
    spoken_of = set()
    for _, observation in lines:
        match observation:
            case InterceptionStarted():
                started.add(storable(observation.interception_id, MAX_WORD_CHARACTERS))
            case InterceptionDescribed() | ResponseProgressed() | ToolCalled() | ThoughtRecorded() | InterceptionEnded():
                spoken_of.add(storable(observation.interception_id, MAX_WORD_CHARACTERS))
            case _:
                pass
    return started, spoken_of - started


def changes_of(lines: Iterable[tuple[str, Observation]], known: Mapping[str, Known]) -> Changes:
    """Return what `lines` change.

    Args:
        lines: Worker id and observation, in order within each worker.
        known: What the store has of the interceptions that `interceptions_of` names; those that are missing are unknown to it.

    Raises:
        ValueError: A time is out of range.
        OverflowError: So is another number.
    """
    changes = Changes()
    for worker_id, observation in lines:
        match observation:
            case InterceptionStarted():
                _start(changes, worker_id, observation)
            case InterceptionDescribed() | ResponseProgressed() | ToolCalled() | ThoughtRecorded() | InterceptionEnded():
                id_ = storable(observation.interception_id, MAX_WORD_CHARACTERS)
                if id_ in changes.started or id_ in known:
                    _continue(changes, id_, observation, known.get(id_))
                else:
                    changes.orphans += 1
            case UnknownEventsSeen():
                _count_unknown(changes, observation)
            case _:
                pass  # the rest is for metrics and logs
    return changes


def _count_unknown(changes: Changes, o: UnknownEventsSeen) -> None:
    at = time_of(o.at)
    for kind, count in o.counts.items():
        key = (_word(o.provider), _word(o.api), _word(kind))
        row = changes.unknown.get(key)
        if row is None:
            names = dict(zip(("provider", "api", "kind"), key, strict=True))
            row = changes.unknown[key] = {**names, "count": 0, "sample": None, "first_seen_at": at, "last_seen_at": at}
        row["count"] += count
        row["last_seen_at"] = max(at, row["last_seen_at"])
        row["first_seen_at"] = min(at, row["first_seen_at"])
        if row["sample"] is None and kind in o.samples:
            row["sample"] = _line(o.samples[kind])


def storable(text: str, max_characters: int | None = None) -> str:
    """Return `text` without what a database refuses, cut to `max_characters`."""
    if max_characters is not None and len(text) > max_characters:
        text = text[:max_characters]
    # Most text, and a tenth of the time.
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text) if _UNSTORABLE.search(text) else text


def time_of(at: float) -> datetime:
    """Return a Unix time in seconds as a time in UTC.

    Raises:
        ValueError: It lies outside the years 1 to 9999.
        OverflowError: So does it, further.
    """
    try:
        return datetime.fromtimestamp(at, UTC)
    except OSError as exc:  # the C library's way to say the same
        message = f"{at} seconds is no time"
        raise OverflowError(message) from exc


def _word(text: str) -> str:
    return storable(text, MAX_WORD_CHARACTERS)


def _line(text: str) -> str:
    return storable(text, MAX_LINE_CHARACTERS)


def _words(metadata: Mapping[str, str]) -> dict[str, str]:
    return {_word(name): _line(value) for name, value in metadata.items()}


def _start(changes: Changes, worker_id: str, o: InterceptionStarted) -> None:
    id_ = _word(o.interception_id)
    at = time_of(o.at)
    initiator_id = _word(o.principal_id)
    user_agent = _line(o.user_agent)
    row: Row = {
        "id": id_,
        "worker_id": worker_id,
        "connection_id": _word(o.connection_id),
        "initiator_id": initiator_id,
        "provider": _word(o.provider_type),
        "provider_name": _word(o.provider),
        "api": _word(o.api),
        "method": _word(o.method),
        "route": _word(o.route),
        "host": _word(o.host),
        "model": "",
        "streaming": False,
        "client": _word(o.client),
        "client_version": _word(o.client_version),
        "user_agent": user_agent,
        "client_request_id": _word(o.client_request_id),
        "client_session_id": None,
        "session_id": id_,
        "correlating_tool_call_id": None,
        "thread_parent_id": None,
        "thread_root_id": None,
        "credential_kind": _word(o.credential_kind),
        "credential_hint": _word(o.credential_hint),
        "billing": str(o.billing),
        "has_prompt": False,
        "started_at": at,
        "described_at": None,
        "ended_at": None,
        "outcome": None,
        "usage_source": None,
        "status_code": None,
        "response_id": "",
        "response_model": "",
        "finish_reason": "",
        "error_type": None,
        "error_message": None,
        "request_anomaly": "",
        "response_anomaly": "",
        "request_bytes": 0,
        "response_bytes": 0,
        "first_byte_seconds": None,
        "first_output_seconds": None,
        "duration_seconds": None,
        "output_characters": 0,
        "metadata": {"request_user_agent": user_agent} if user_agent else {},
    }
    changes.started[id_] = row
    if initiator_id not in changes.users:
        changes.users[initiator_id] = {
            "id": initiator_id,
            "name": _word(o.principal_name),
            "groups": [_word(group) for group in o.principal_groups],
            "created_at": at,
        }


def _continue(
    changes: Changes,
    id_: str,
    observation: InterceptionDescribed | ResponseProgressed | ToolCalled | ThoughtRecorded | InterceptionEnded,
    known: Known | None,
) -> None:
    match observation:
        case InterceptionDescribed():
            _describe(changes, id_, observation, known)
        case ResponseProgressed():
            if not _has_ended(changes, id_, known):
                # Until an end replaces it: a worker that dies leaves just this.
                changes.tokens[id_] = _token_row(id_, observation, {_USAGE: "partial"})
                changes.reports[id_] = observation
        case ToolCalled():
            changes.tools[id_, observation.position] = _tool_row(id_, observation)
        case ThoughtRecorded():
            changes.thoughts[id_, observation.position] = {
                "interception_id": id_,
                "position": observation.position,
                "content": storable(observation.content),
                "metadata": {"source": str(observation.source)},
                "created_at": time_of(observation.at),
            }
        case InterceptionEnded():
            if not _has_ended(changes, id_, known):
                _end(changes, id_, observation, known)
        case _:
            assert_never(observation)


def _has_ended(changes: Changes, id_: str, known: Known | None) -> bool:
    """Return whether an end came already; the first one wins."""
    row = changes.started.get(id_)
    if row is not None:
        return row["ended_at"] is not None
    return id_ in changes.ended or (known is not None and known.has_ended)


def _describe(changes: Changes, id_: str, o: InterceptionDescribed, known: Known | None) -> None:
    row = changes.started.get(id_)
    client_session_id = _word(o.client_session_id) or None
    described: Row = {
        "model": _word(o.request_model),
        "streaming": o.streaming,
        "client_session_id": client_session_id,
        "session_id": client_session_id or id_,
        "correlating_tool_call_id": _word(o.correlating_tool_call_id) or None,
        "has_prompt": o.has_prompt,
        "request_anomaly": _line(o.anomaly),
        "described_at": time_of(o.at),
        "metadata": _joined(changes, id_, o.metadata, known),
    }
    if row is not None:
        row.update(described)
    else:
        # The key's name differs from the column's, for the WHERE of an update.
        changes.described[id_] = described | {"key": id_}
    if o.prompt is not None:
        changes.prompts[id_] = {
            "interception_id": id_,
            "provider_response_id": "",
            "prompt": storable(o.prompt),
            "metadata": {},
            "created_at": time_of(o.at),
        }


def _end(changes: Changes, id_: str, o: InterceptionEnded, known: Known | None) -> None:
    row = changes.started.get(id_)
    response_id = _word(o.response_id)
    ended: Row = {
        "ended_at": time_of(o.at),
        "outcome": str(o.outcome),
        "usage_source": str(o.usage_source),
        "status_code": o.status_code,
        "response_id": response_id,
        "response_model": _word(o.response_model),
        "finish_reason": _word(o.finish_reason),
        "error_type": None if o.error_type is None else str(o.error_type),
        "error_message": _error_message(o),
        "response_anomaly": _line(o.anomaly),
        "request_bytes": o.request_bytes,
        "response_bytes": o.response_bytes,
        "first_byte_seconds": o.first_byte_seconds,
        "first_output_seconds": o.first_output_seconds,
        "duration_seconds": o.duration_seconds,
        "output_characters": o.output_characters,
        "metadata": _joined(changes, id_, o.metadata, known),
    }
    if row is not None:
        row.update(ended)
        if o.credential_hint:
            row["credential_hint"] = _word(o.credential_hint)
    else:
        changes.ended[id_] = ended | {"key": id_}
        if o.credential_hint:
            changes.switched_keys[id_] = {"key": id_, "credential_hint": _word(o.credential_hint)}
    if o.usage_source is not UsageSource.NONE:
        said = {name: _line(value) for name in (_SERVICE_TIER, _USAGE) if (value := o.metadata.get(name))}
        changes.tokens[id_] = _token_row(id_, o, said)
        changes.reports[id_] = o
    if response_id:
        prompt = changes.prompts.get(id_)
        if prompt is not None:
            prompt["provider_response_id"] = response_id
        elif row is None:
            changes.answered_prompts[id_] = {"key": id_, "provider_response_id": response_id}


def _joined(changes: Changes, id_: str, more: Mapping[str, str], known: Known | None) -> dict[str, str]:
    """Return an interception's metadata with `more` of it, and remember that."""
    row = changes.started.get(id_) or changes.described.get(id_)
    before: dict[str, str] = row["metadata"] if row is not None else known.metadata if known is not None else {}
    return before | _words(more) if more else before


def _error_message(o: InterceptionEnded) -> str | None:
    if o.error_type is None and not o.error_message:
        return None
    message = storable(o.error_message)
    if len(message) * 4 <= MAX_ERROR_MESSAGE_BYTES:
        return message
    return message.encode()[:MAX_ERROR_MESSAGE_BYTES].decode(errors="ignore")


def _token_row(id_: str, o: ResponseProgressed | InterceptionEnded, metadata: dict[str, Any]) -> Row:
    usage = o.usage
    return {
        "interception_id": id_,
        "position": 0,
        "provider_response_id": _word(o.response_id),
        "input_tokens": _count(usage.input_tokens),
        "output_tokens": _count(usage.output_tokens),
        "cache_read_input_tokens": _count(usage.cache_read_input_tokens),
        "cache_write_input_tokens": _count(usage.cache_write_input_tokens),
        "cost_micros": None,
        "price_source": None,
        "price_version": None,
        "cost_basis": None,
        "cost_details": None,
        "metadata": _token_metadata(usage) | metadata,
        "created_at": time_of(o.at),
    }


def _token_metadata(usage: TokenUsage) -> dict[str, Any]:
    """Return the figures beside the four that have columns, by Coder's names where it has one; those that are 0 are left out."""
    figures = {
        "cache_ephemeral_5m_input": usage.cache_write_5m_input_tokens,
        "cache_ephemeral_1h_input": usage.cache_write_1h_input_tokens,
        "output_reasoning": usage.reasoning_output_tokens,
        **usage.extra,
    }
    return {_word(name): _count(count) for name, count in figures.items() if count}


def _count(value: int) -> int:
    return max(0, min(value, MAX_TOKENS))


def _tool_row(id_: str, o: ToolCalled) -> Row:
    return {
        "interception_id": id_,
        "position": o.position,
        "provider_response_id": _word(o.response_id),
        "provider_tool_call_id": _word(o.call_id),
        "provider_item_id": _word(o.item_id),
        "tool": _word(o.tool),
        "tool_kind": str(o.tool_kind),
        "server_url": _line(o.server_url),
        "input": None if o.arguments is None else storable(o.arguments),
        "truncated": o.truncated,
        "injected": False,
        "invocation_error": None,
        "metadata": {},
        "created_at": time_of(o.at),
    }
