"""The pace script: how the fake provider delivers an answer. Pause here, cut here, reset here, or wait for the test.

A request chooses its pace in the model's name, because every client lets one name a model and none of them changes it:
`fake+events=20+pause=0.05+cut=7`. A request without a body says the same in its query, `?pace=cut=7+length=100`. So does a key,
`sk-fake+status=429`: that is how keys differ here.
"""

import asyncio
import dataclasses
from typing import Any, get_type_hints


@dataclasses.dataclass(frozen=True)
class Pace:
    """How an answer is made and delivered. Pieces are counted from 0; a piece is one event of a stream."""

    status: int = 200
    """Status of the answer; from 400 on it is an error in the provider's own shape."""
    retry: int = 1
    """Seconds of the `Retry-After` of a 429 or 529."""
    events: int = 8
    """How many pieces the visible text of a streamed answer has."""
    length: int = 0
    """Bytes of padding in the visible text."""
    tools: int = -1
    """How many tools are called at once; -1: one, when the request offers tools and answers none."""
    pause: float = 0.0
    """Seconds between two pieces."""
    gate: str = ""
    """Name of a gate: after the first, a piece is sent only when the test lets it through."""
    split: int = 0
    """Bytes of one write; 0 writes a piece whole."""
    chunk: int = 0
    """Bytes of one HTTP chunk; 0 sends a piece as one chunk."""
    framing: str = "chunked"
    """`chunked`, `length` or `close`."""
    coding: str = "auto"
    """Content coding: `auto` (what the client prefers), or one by name."""
    trailers: int = 0
    """How many trailer fields follow a chunked body."""
    informational: int = 0
    """How many 1xx answers come first."""
    early: int = 0
    """1: answer before the request's body was read."""
    cut: int = -1
    """Close the connection, properly in TLS but without an end of the body, before this piece."""
    reset: int = -1
    """Reset the connection before this piece."""
    stall: int = -1
    """Send nothing more before this piece, until the client leaves."""
    error: int = -1
    """Report an error inside the stream instead of this piece, and end."""
    broken: int = -1
    """Send bytes that are no event stream instead of this piece, and go on."""
    huge: int = -1
    """Send an event of 20 MB before this piece."""
    endless: int = 0
    """1: the text never ends."""
    echo: int = 0
    """1: an error repeats every credential of its request, as careless servers do."""
    silent_usage: int = 0
    """1: say nothing about tokens."""

    @classmethod
    def parse(cls, script: str) -> "Pace":
        """Return the pace that `name+key=value+…` asks for; words without `=` are names and mean nothing."""
        kinds = get_type_hints(cls)
        values: dict[str, Any] = {}
        for word in script.split("+"):
            key, equals, value = word.partition("=")
            if equals and key in kinds:
                values[key] = kinds[key](value)
        return cls(**values)


class Gate:
    """Hand-shaken delivery: the provider asks before each piece, the test lets it through, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._permits = asyncio.Semaphore(0)
        self.sent_pieces = 0
        """How many pieces the provider has handed to its socket."""

    def release(self, count: int = 1) -> None:
        """Let `count` more pieces through."""
        for _ in range(count):
            self._loop.call_soon_threadsafe(self._permits.release)

    async def wait(self) -> None:
        """Return when the test lets the next piece through. For the provider."""
        await self._permits.acquire()
