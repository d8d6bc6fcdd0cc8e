"""Observations as a worker makes them: whole lives of interceptions, with every figure given or plain."""

import os
import time

from aiproxyd.model.events import ThoughtSource
from aiproxyd.model.ids import uuid7
from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    Observation,
    ResponseProgressed,
    ThoughtRecorded,
    ToolCalled,
)
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage

# 2026-01-31T08:00:00Z; nothing compares it with today.
START = 1_769_846_400.0


def new_id() -> str:
    """Return an interception's id."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def started(id_: str, *, at: float = START, user: str = "alice", **changes: object) -> InterceptionStarted:
    """The head of a request was seen."""
    plain = {
        "provider": "anthropic",
        "provider_type": "anthropic",
        "api": "anthropic.messages",
        "method": "POST",
        "route": "/v1/messages",
        "host": "api.anthropic.com",
        "principal_id": f"id-of-{user}",
        "principal_name": user,
        "client": "Claude Code",
        "client_version": "2.0.67",
        "user_agent": "claude-cli/2.0.67 (external, cli)",
        "credential_hint": "sk-a...efgh",
    }
    return InterceptionStarted(at=at, interception_id=id_, **plain | changes)


def described(id_: str, *, at: float = START + 0.01, **changes: object) -> InterceptionDescribed:
    """Its body was read."""
    plain = {"request_model": "claude-sonnet-4-5", "streaming": True, "prompt": "Fix the bug.", "has_prompt": True}
    return InterceptionDescribed(at=at, interception_id=id_, **plain | changes)


def progressed(id_: str, *, at: float = START + 0.5, **changes: object) -> ResponseProgressed:
    """The first usage came."""
    plain = {"response_id": "msg_1", "usage": TokenUsage(input_tokens=3, output_tokens=1)}
    return ResponseProgressed(at=at, interception_id=id_, **plain | changes)


def tool_called(id_: str, call_id: str, *, at: float = START + 1, position: int = 0, **changes: object) -> ToolCalled:
    """The model called a tool."""
    plain = {"tool": "Bash", "arguments": '{"command":"ls"}', "response_id": "msg_1"}
    return ToolCalled(at=at, interception_id=id_, call_id=call_id, position=position, **plain | changes)


def thought(id_: str, *, at: float = START + 1, position: int = 0, content: str = "Hm.") -> ThoughtRecorded:
    """The model thought."""
    return ThoughtRecorded(at=at, interception_id=id_, position=position, source=ThoughtSource.THINKING, content=content)


def ended(id_: str, *, at: float = START + 2, **changes: object) -> InterceptionEnded:
    """It ended well."""
    plain = {
        "outcome": Outcome.COMPLETED,
        "usage_source": UsageSource.REPORTED,
        "usage": TokenUsage(input_tokens=3, output_tokens=300, cache_read_input_tokens=12_345),
        "status_code": 200,
        "response_id": "msg_1",
        "response_model": "claude-sonnet-4-5-20250929",
        "finish_reason": "tool_use",
        "duration_seconds": 2.0,
    }
    return InterceptionEnded(at=at, interception_id=id_, **plain | changes)


def life(id_: str, *, at: float = START, user: str = "alice", answers: str = "", calls: str = "") -> list[Observation]:
    """A whole interception of five observations, or four without `calls`.

    Args:
        id_: Its id.
        at: When it starts, Unix time in seconds; it takes two seconds.
        user: Who asks.
        answers: The tool call that the request answers.
        calls: The tool call that the response makes.
    """
    return [
        started(id_, at=at, user=user),
        described(id_, at=at + 0.01, correlating_tool_call_id=answers),
        progressed(id_, at=at + 0.5),
        *([tool_called(id_, calls, at=at + 1)] if calls else []),
        ended(id_, at=at + 2),
    ]


def of_worker(worker_id: str, *observations: Observation) -> list[tuple[str, Observation]]:
    """Observations as lines of one worker."""
    return [(worker_id, observation) for observation in observations]
