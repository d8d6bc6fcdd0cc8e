"""What a provider's answer is made of, whatever its API: the shape the three APIs fill, the fake server sends and the ledger keeps."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tests.support.pace import Pace


@dataclasses.dataclass
class Reply:
    """One answer, before it is coded, framed and paced."""

    status: int
    content_type: str
    pieces: Iterable[bytes]
    """The body; one element an event when it is a stream. May never end."""
    usage: dict[str, int] = dataclasses.field(default_factory=dict)
    """The true figures, under the names of the record's token fields; empty when the answer names none."""
    response_id: str = ""
    response_model: str = ""
    tool_calls: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """`name`, `call_id` and `arguments` of each call, in order."""
    thoughts: list[str] = dataclasses.field(default_factory=list)
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Further header fields."""
    error_piece: bytes = b""
    """The event that reports an error inside this stream."""


def document(status: int, body: Any, **facts: Any) -> Reply:
    """Return an answer that is one JSON document."""
    return Reply(status, "application/json", [json.dumps(body).encode()], **facts)


def event(data: Any, name: str = "") -> bytes:
    """Return one event of an event stream."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


# Of four digits each, in an order in which every number below comes once before it repeats.
_NUMBERS, _STEP = 1 << 16, 104_729
_STEP_BACK = pow(_STEP, -1, _NUMBERS)


@functools.cache
def _digits() -> str:
    return "".join(f"{at * _STEP % _NUMBERS:04x}" for at in range(_NUMBERS)) * 2


def _padding(number: int, length: int) -> str:
    """Return text that differs from that of other numbers, and is not of one letter: a content coding cannot make it vanish.

    Cut from one text, because tests ask for hundreds of megabytes.
    """
    start = 4 * (number * 7919 * _STEP_BACK % _NUMBERS)
    text = _digits() if start + length <= len(_digits()) else _digits() * ((start + length) // len(_digits()) + 1)
    return text[start : start + length]


def words(pace: Pace) -> Iterator[str]:
    """Yield the visible text of an answer, piece by piece."""
    number = 0
    while pace.endless or number < pace.events:
        yield f"word{number} " + _padding(number, pace.length // max(pace.events, 1))
        number += 1


def wanted_tools(request: dict[str, Any], pace: Pace, *, answers_a_tool: bool) -> int:
    """Return how many tools the answer calls."""
    if not request.get("tools") or answers_a_tool:
        return 0
    return 1 if pace.tools < 0 else pace.tools


def arguments_for(schema: dict[str, Any] | None, number: int) -> str:
    """Return JSON arguments that fit a tool's schema."""
    values: dict[str, Any] = {}
    for name, kind in ((schema or {}).get("properties") or {}).items():
        match kind.get("type"):
            case "integer" | "number":
                values[name] = 40 + number
            case "boolean":
                values[name] = True
            case _:
                values[name] = f"{name} ü {number}"
    return json.dumps(values)


def fragments(text: str, size: int = 7) -> list[str]:
    """Return `text` in pieces of `size` characters, as a provider streams arguments."""
    return [text[start : start + size] for start in range(0, len(text), size)]
