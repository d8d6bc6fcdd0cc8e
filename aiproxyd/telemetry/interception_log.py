"""Writes what is recorded as log lines, `interception log`, with the record types and fields of Coder's structured logs. A sink of the
live fold, independent of the store.

A line is written when its facts are complete: the start when the request's body was read, token figures at the end. Fields that
are not known are empty strings. Prompts, arguments and reasoning are in it; what looks like a secret is hidden, and text of a
client cannot forge a line.
"""

import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    Observation,
    ThoughtRecorded,
    ToolCalled,
)
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.telemetry.logs import Human, hide_secrets

MESSAGE = "interception log"

_Fields = dict[str, Any]


class InterceptionLog:
    """Turns observations into lines."""

    def __init__(self, write: Callable[[str], None], *, human: bool, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            write: Takes a line without its end, and never raises.
            human: For people instead of as JSON.
            clock: Unix time in seconds.
        """
        self._write = write
        self._human = Human() if human else None
        self._clock = clock
        # By worker: what is open, and its head until its body is known.
        self._open: dict[str, dict[str, InterceptionStarted | None]] = {}

    def observe(self, worker_id: str, observation: Observation) -> None:
        """Take one observation."""
        match observation:
            case InterceptionStarted():
                self._open.setdefault(worker_id, {})[observation.interception_id] = observation
            case InterceptionDescribed():
                self._describe(worker_id, observation)
            case ToolCalled():
                self._say("tool_usage", observation.interception_id, _tool(observation))
            case ThoughtRecorded():
                fields = {
                    "content": observation.content,
                    "created_at": _time(observation.at),
                    "metadata": {"source": str(observation.source)},
                }
                self._say("model_thought", observation.interception_id, fields)
            case InterceptionEnded():
                self._end(worker_id, observation)
            case _:
                pass

    def worker_lost(self, worker_id: str) -> None:
        """End what a dead worker left open."""
        for interception_id, head in self._open.pop(worker_id, {}).items():
            if head is not None:
                self._say("interception_start", interception_id, _start(head, None))
            fields = {"ended_at": _time(self._clock()), "outcome": str(Outcome.INTERRUPTED)}
            self._say("interception_end", interception_id, fields)

    def _describe(self, worker_id: str, o: InterceptionDescribed) -> None:
        opened = self._open.setdefault(worker_id, {})
        head = opened.get(o.interception_id)
        if head is not None:
            opened[o.interception_id] = None
            self._say("interception_start", o.interception_id, _start(head, o))
        if o.prompt is not None:
            fields = {"msg_id": "", "prompt": o.prompt, "created_at": _time(o.at), "metadata": {}}
            self._say("prompt_usage", o.interception_id, fields)

    def _end(self, worker_id: str, o: InterceptionEnded) -> None:
        head = self._open.get(worker_id, {}).pop(o.interception_id, None)
        if head is not None:
            self._say("interception_start", o.interception_id, _start(head, None))
        if o.usage_source is not UsageSource.NONE:
            self._say("token_usage", o.interception_id, _tokens(o))
        fields = {
            "ended_at": _time(o.at),
            "outcome": str(o.outcome),
            "status_code": o.status_code,
            "error_type": str(o.error_type) if o.error_type is not None else "",
            "error_message": o.error_message,
            "duration_seconds": o.duration_seconds,
        }
        if o.credential_hint:
            fields["credential_hint"] = o.credential_hint
        self._say("interception_end", o.interception_id, fields)

    def _say(self, record_type: str, interception_id: str, fields: _Fields) -> None:
        event = {"record_type": record_type, "interception_id": interception_id, **fields}
        event = {
            "time": _time(self._clock()),
            "level": "info",
            "message": MESSAGE,
            **hide_secrets(None, "info", event),
        }
        # JSON in ASCII: no character of it breaks a line or moves a cursor.
        self._write(self._human(None, "info", event) if self._human else json.dumps(event, separators=(",", ":")))


def _start(head: InterceptionStarted, described: InterceptionDescribed | None) -> _Fields:
    metadata = {"request_user_agent": head.user_agent} if head.user_agent else {}
    return {
        "initiator_id": head.principal_id,
        "initiator": head.principal_name,
        "api_key_id": "",
        "provider": head.provider_type,
        "provider_name": head.provider,
        "model": described.request_model if described else "",
        "client": head.client,
        "client_session_id": described.client_session_id if described else "",
        "started_at": _time(head.at),
        "metadata": metadata | (described.metadata if described else {}),
        "correlating_tool_call_id": described.correlating_tool_call_id if described else "",
        "credential_kind": head.credential_kind,
        "credential_hint": head.credential_hint,
    }


def _tool(o: ToolCalled) -> _Fields:
    return {
        "msg_id": o.response_id,
        "tool_call_id": o.call_id,
        "item_id": o.item_id,
        "tool": o.tool,
        "input": o.arguments or "",
        "server_url": o.server_url,
        "injected": False,
        "invocation_error": "",
        "created_at": _time(o.at),
        "metadata": {},
    }


def _tokens(o: InterceptionEnded) -> _Fields:
    usage = o.usage
    more = {
        "cache_ephemeral_5m_input": usage.cache_write_5m_input_tokens,
        "cache_ephemeral_1h_input": usage.cache_write_1h_input_tokens,
        "output_reasoning": usage.reasoning_output_tokens,
        **usage.extra,
    }
    return {
        "msg_id": o.response_id,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_write_input_tokens": usage.cache_write_input_tokens,
        "usage_source": str(o.usage_source),
        "created_at": _time(o.at),
        "metadata": {name: count for name, count in more.items() if count},
    }


def _time(at: float) -> str:
    try:
        return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    except (ValueError, OverflowError, OSError):
        return ""  # a line of the journal that says nonsense
