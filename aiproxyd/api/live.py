"""Passes on what happens, as it happens, to those who look on. A sink of the live fold; keeps the last moments and no more.

Whoever looks on has a bounded queue. One who does not keep up loses the oldest events and is told how many; nobody waits for
them.
"""

import asyncio
from collections import OrderedDict, deque
from datetime import UTC, datetime
from typing import Any

import msgspec

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

# What a client is told once its connection stands. Anything else is a refusal, also where it is ours that did not come about.
_CONNECTED = 200

_CONTENT = frozenset({"prompt", "input", "content", "error_message"})

_Shown = InterceptionStarted | InterceptionDescribed | ToolCalled | ThoughtRecorded | InterceptionEnded | ConnectDecided
_KINDS: dict[type[_Shown], str] = {
    InterceptionStarted: "started",
    InterceptionDescribed: "described",
    ToolCalled: "tool",
    ThoughtRecorded: "thought",
    InterceptionEnded: "ended",
    ConnectDecided: "refused",
}

_Known = tuple[InterceptionStarted | None, str]
"""The start of an interception and the model that it asked for."""

_NOTHING_KNOWN: _Known = (None, "")


class LiveEvent(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened. Most are never looked at, so what is shown of it is worked out by who looks."""

    number: int
    """Ascending since the daemon started."""
    observation: _Shown
    """With its content cut."""
    start: InterceptionStarted | None = None
    """That of its interception, when it is known."""
    model: str = ""
    """What its interception had asked for by then."""

    @property
    def kind(self) -> str:
        """`started`, `described`, `tool`, `thought`, `ended` or `refused`."""
        return _KINDS[type(self.observation)]

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it."""
        observation, start = self.observation, self.start
        id_ = "" if isinstance(observation, ConnectDecided) else observation.interception_id
        facts: dict[str, Any] = {"interception_id": id_}
        if start is not None:
            facts |= {
                "user": start.principal_name,
                "provider": start.provider,
                "client": start.client,
                "route": start.route,
                "model": self.model,
            }
        return facts | _facts_of(observation)

    def shown(self, *, with_content: bool) -> dict[str, Any]:
        """Return what is sent."""
        facts = self.facts
        if not with_content:
            facts = {name: fact for name, fact in facts.items() if name not in _CONTENT}
        return {"number": self.number, "kind": self.kind, "at": _time(self.observation.at), **facts}


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
        self._known: OrderedDict[str, _Known] = OrderedDict()
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
        start, model = _NOTHING_KNOWN
        match observation:
            case InterceptionStarted():
                start = observation
                self._known[observation.interception_id] = start, model
                if len(self._known) > _MAX_KNOWN:
                    self._known.popitem(last=False)
            case InterceptionDescribed():
                start, model = self._known.get(observation.interception_id, _NOTHING_KNOWN)
                if start is not None:
                    self._known[observation.interception_id] = start, observation.request_model
                observation = _cut(observation, "prompt")
            case InterceptionEnded():
                start, model = self._known.pop(observation.interception_id, _NOTHING_KNOWN)
                observation = _cut(observation, "error_message")
            case ToolCalled():
                start, model = self._known.get(observation.interception_id, _NOTHING_KNOWN)
                observation = _cut(observation, "arguments")
            case ThoughtRecorded():
                start, model = self._known.get(observation.interception_id, _NOTHING_KNOWN)
                observation = _cut(observation, "content")
            case ConnectDecided() if observation.action is Action.REFUSE or observation.status_code != _CONNECTED:
                pass
            case _:
                return
        self._number += 1
        event = LiveEvent(self._number, observation, start, model)
        self._recent.append(event)
        for onlooker in self._onlookers:
            onlooker.put(event)

    def worker_lost(self, worker_id: str) -> None:
        """Know that a worker is dead; what it had under way is forgotten as newer ones come."""


def _facts_of(o: _Shown) -> dict[str, Any]:
    match o:
        case InterceptionDescribed():
            return {"model": o.request_model, "session_id": o.client_session_id, "streaming": o.streaming, "prompt": o.prompt}
        case ToolCalled():
            return {"tool": o.tool, "input": o.arguments}
        case ThoughtRecorded():
            return {"source": str(o.source), "content": o.content}
        case InterceptionEnded():
            return {
                "outcome": str(o.outcome),
                "status_code": o.status_code,
                "error_type": str(o.error_type) if o.error_type is not None else None,
                "error_message": o.error_message,
                "input_tokens": o.usage.input_tokens,
                "output_tokens": o.usage.output_tokens,
                "cache_read_input_tokens": o.usage.cache_read_input_tokens,
                "cache_write_input_tokens": o.usage.cache_write_input_tokens,
                "duration_seconds": o.duration_seconds,
            }
        case ConnectDecided():
            return {
                "user": o.principal_name,
                "provider": o.provider,
                "host": o.host,
                "reason": o.reason,
                "status_code": o.status_code,
            }
        case InterceptionStarted():
            return {}


def _cut[O: _Shown](observation: O, name: str) -> O:
    """Return `observation`, its content `name` cut."""
    content: str | None = getattr(observation, name)
    if content is None or len(content) <= MAX_CONTENT_CHARACTERS:
        return observation
    return msgspec.structs.replace(observation, **{name: content[: MAX_CONTENT_CHARACTERS - 1] + "…"})


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""  # a line of the journal that says nonsense
