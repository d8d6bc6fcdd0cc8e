"""Passes on what happens, as it happens, to those who look on. A sink of the live fold; keeps the last moments and no more.

Whoever looks on has a bounded queue. One who does not keep up loses the oldest events and is told how many; nobody waits for
them.
"""

import asyncio
from collections import OrderedDict, deque
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiproxyd.model.observation import (
    ConnectDecided,
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    Observation,
    ThoughtRecorded,
    ToolCalled,
)
from aiproxyd.model.verdict import Action

MAX_RECENT_EVENTS = 200
"""Shown to who comes later."""

MAX_QUEUED_EVENTS = 1000
"""For each onlooker; about 2 KB each at most."""

MAX_ONLOOKERS = 64

MAX_CONTENT_CHARACTERS = 2000
"""Prompts, arguments and reasoning are cut to this; the records have them whole."""

# Interceptions under way whose user and model later events repeat.
_MAX_KNOWN = 10_000

_CONTENT = frozenset({"prompt", "input", "content", "error_message"})


class LiveEvent(NamedTuple):
    """One thing that happened."""

    number: int
    """Ascending since the daemon started."""
    kind: str
    """`started`, `described`, `tool`, `thought`, `ended` or `refused`."""
    at: float
    """Unix time in seconds."""
    facts: dict[str, Any]

    def shown(self, *, with_content: bool) -> dict[str, Any]:
        """Return what is sent."""
        facts = self.facts if with_content else {name: fact for name, fact in self.facts.items() if name not in _CONTENT}
        # Most events are never looked at, so their time is written out here.
        return {"number": self.number, "kind": self.kind, "at": _time(self.at), **facts}


class Onlooker:
    """One who looks on; reads with `next`."""

    def __init__(self, events: deque[LiveEvent]) -> None:
        self.dropped = 0
        """Events that were lost because they were not read in time, since this was last set to 0."""
        self._events = events
        self._came = asyncio.Event()
        self._closed = False
        if events:
            self._came.set()

    async def next(self) -> list[LiveEvent]:
        """Return what happened since the last call, once there is something; nothing when the feed is closed."""
        await self._came.wait()
        if not self._closed:
            self._came.clear()
        events = list(self._events)
        self._events.clear()
        return events

    def put(self, event: LiveEvent) -> None:
        """Queue an event, in place of the oldest one when there is no room."""
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append(event)
        self._came.set()

    def close(self) -> None:
        """End the wait for good."""
        self._closed = True
        self._came.set()


class LiveFeed:
    """Everybody who looks on, and the last events."""

    def __init__(self) -> None:
        self._recent: deque[LiveEvent] = deque(maxlen=MAX_RECENT_EVENTS)
        self._onlookers: set[Onlooker] = set()
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._number = 0
        self._closed = False

    @property
    def onlookers(self) -> int:
        """How many look on."""
        return len(self._onlookers)

    def join(self, *, after: int = 0) -> Onlooker | None:
        """Return a new onlooker, or None when there are too many or the daemon stops.

        Args:
            after: Leave out events up to this number, which were seen.
        """
        if self._closed or len(self._onlookers) >= MAX_ONLOOKERS:
            return None
        # A number of an earlier life of the daemon says nothing.
        seen = after if after <= self._number else 0
        onlooker = Onlooker(deque((event for event in self._recent if event.number > seen), MAX_QUEUED_EVENTS))
        self._onlookers.add(onlooker)
        return onlooker

    def leave(self, onlooker: Onlooker) -> None:
        """Forget an onlooker."""
        self._onlookers.discard(onlooker)

    def close(self) -> None:
        """End every onlooker's wait for good."""
        self._closed = True
        for onlooker in self._onlookers:
            onlooker.close()

    # A sink of the live fold.

    def observe(self, worker_id: str, observation: Observation) -> None:  # noqa: ARG002
        """Take one observation."""
        match observation:
            case InterceptionStarted():
                self._start(observation)
            case InterceptionDescribed():
                self._tell("described", observation.at, observation.interception_id, _described(observation))
            case ToolCalled():
                facts = {"tool": observation.tool, "input": _cut(observation.arguments)}
                self._tell("tool", observation.at, observation.interception_id, facts)
            case ThoughtRecorded():
                facts = {"source": str(observation.source), "content": _cut(observation.content)}
                self._tell("thought", observation.at, observation.interception_id, facts)
            case InterceptionEnded():
                self._tell("ended", observation.at, observation.interception_id, _ended(observation))
                self._known.pop(observation.interception_id, None)
            case ConnectDecided(action=Action.REFUSE):
                self._tell("refused", observation.at, "", _refused(observation))
            case _:
                pass

    def worker_lost(self, worker_id: str) -> None:
        """Know that a worker is dead; what it had under way is forgotten as newer ones come."""

    def _start(self, o: InterceptionStarted) -> None:
        known = {"user": o.principal_name, "provider": o.provider, "client": o.client, "route": o.route, "model": ""}
        self._known[o.interception_id] = known
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        self._tell("started", o.at, o.interception_id, {})

    def _tell(self, kind: str, at: float, interception_id: str, facts: dict[str, Any]) -> None:
        known = self._known.get(interception_id, {})
        if "model" in facts and known:
            known["model"] = facts["model"]
        self._number += 1
        event = LiveEvent(self._number, kind, at, {"interception_id": interception_id, **known, **facts})
        self._recent.append(event)
        for onlooker in self._onlookers:
            onlooker.put(event)


def _described(o: InterceptionDescribed) -> dict[str, Any]:
    return {"model": o.request_model, "session_id": o.client_session_id, "streaming": o.streaming, "prompt": _cut(o.prompt)}


def _ended(o: InterceptionEnded) -> dict[str, Any]:
    usage = o.usage
    return {
        "outcome": str(o.outcome),
        "status_code": o.status_code,
        "error_type": str(o.error_type) if o.error_type is not None else None,
        "error_message": _cut(o.error_message),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_write_input_tokens": usage.cache_write_input_tokens,
        "duration_seconds": o.duration_seconds,
    }


def _refused(o: ConnectDecided) -> dict[str, Any]:
    return {
        "user": o.principal_name,
        "provider": o.provider,
        "host": o.host,
        "reason": o.reason,
        "status_code": o.status_code,
    }


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_CONTENT_CHARACTERS else text[: MAX_CONTENT_CHARACTERS - 1] + "…"


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""  # a line of the journal that says nonsense
