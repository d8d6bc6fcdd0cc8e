"""Circuit breakers: refuse requests to what failed several times in a row, and try again after a while. Pure: times are arguments.

One breaker a provider, endpoint and model, so that a model that is down does not stop another.

    closed ── `failure_threshold` failures in a row within `interval_seconds` ──► open
    open ── `open_seconds` later, at the next request ──► half-open
    half-open ── `half_open_max_requests` successes ──► closed;   any failure ──► open

Facts: a success in `closed` ends the row. While a breaker is open or half-open, only requests count that it let through to try.
In half-open, requests beyond `half_open_max_requests` are refused until those succeed. One that ends without an answer (its client
left) gives its place back, and places that nobody gave back within `open_seconds` are free again: a provider that hangs must not
keep a breaker half-open for an hour.

Strategy: a breaker exists while there is something to remember. A closed one without failures is no entry, so that the names of
models, which clients choose, take no memory.
"""

import enum
import math
from collections import OrderedDict, deque

import msgspec

# An entry is below 1 KiB with the default threshold. Beyond so many the oldest is forgotten, that is: closed.
MAX_BREAKERS = 2000

FAILURE_STATUSES = frozenset({503, 504, 529})
"""Statuses that say the provider cannot serve. 429 is not one: it is about a key, and the key pool's business."""


class BreakerSettings(msgspec.Struct, frozen=True):
    """When breakers open, and for how long."""

    failure_threshold: int = 5
    interval_seconds: float = 10.0
    open_seconds: float = 30.0
    half_open_max_requests: int = 3


class BreakerState(enum.StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    """Some pass, to try."""
    OPEN = "open"


class Result(enum.Enum):
    """What came of a request that was admitted."""

    SUCCESS = enum.auto()
    """The provider answered, with whatever status is not a failure."""
    FAILURE = enum.auto()
    """It answered with one of FAILURE_STATUSES, or could not be reached, or did not answer in time."""
    UNKNOWN = enum.auto()
    """Nobody waited for the answer."""


class Line(msgspec.Struct, frozen=True):
    """What has a breaker of its own within a provider."""

    endpoint: str
    """The route."""
    model: str
    """The request's model; empty where there is none."""


class Ticket(msgspec.Struct, frozen=True):
    """The leave of one request to go on. It is given back once with `Breakers.settle`."""

    line: Line
    generation: int
    """Of the breaker's state it was given in."""


class Rejected(msgspec.Struct, frozen=True):
    """A request may not go on."""

    retry_after_seconds: int
    """For the answer: how long a breaker stays open, as in Coder's gateway."""


class _Breaker:
    __slots__ = ("admitted", "failures", "generation", "since", "state", "successes")

    def __init__(self, threshold: int) -> None:
        self.state = BreakerState.CLOSED
        self.failures: deque[float] = deque(maxlen=threshold)
        """Times of the last failures in a row."""
        self.since = -math.inf
        """When the state began; in half-open, when places were last given out anew."""
        self.generation = 0
        self.admitted = 0
        self.successes = 0

    def turn(self, state: BreakerState, now: float, generation: int) -> None:
        self.state, self.since, self.generation = state, now, generation
        self.failures.clear()
        self.admitted = self.successes = 0


class Breakers:
    """All breakers of one provider in one worker."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self._breakers: OrderedDict[Line, _Breaker] = OrderedDict()
        self._generations = 0

    def __len__(self) -> int:
        return len(self._breakers)

    @property
    def unclosed(self) -> list[Line]:
        """What has a breaker that is open or half-open."""
        return [line for line, breaker in self._breakers.items() if breaker.state is not BreakerState.CLOSED]

    def state(self, line: Line) -> BreakerState:
        """Return the state after the last request; an open breaker becomes half-open at the next one."""
        breaker = self._breakers.get(line)
        return BreakerState.CLOSED if breaker is None else breaker.state

    def admit(self, line: Line, now: float) -> tuple[Ticket | Rejected, BreakerState | None]:
        """Return whether a request may go on, and the state when this changed it."""
        breaker = self._breakers.get(line)
        if breaker is None:
            return Ticket(line, 0), None
        settings = self.settings
        changed = None
        if breaker.state is BreakerState.OPEN:
            if now - breaker.since < settings.open_seconds:
                return self._rejected(), None
            self._turn(breaker, BreakerState.HALF_OPEN, now)
            changed = BreakerState.HALF_OPEN
        if breaker.state is BreakerState.HALF_OPEN:
            if breaker.admitted >= settings.half_open_max_requests:
                if now - breaker.since < settings.open_seconds:
                    return self._rejected(), changed
                self._turn(breaker, BreakerState.HALF_OPEN, now)
            if not breaker.admitted:
                breaker.since = now
            breaker.admitted += 1
        return Ticket(line, breaker.generation), changed

    def settle(self, ticket: Ticket, result: Result, now: float) -> BreakerState | None:
        """Take note of what came of a request; return the state when this changed it."""
        breaker = self._breakers.get(ticket.line)
        if breaker is None:
            if result is not Result.FAILURE or ticket.generation:
                return None
            breaker = self._breakers[ticket.line] = _Breaker(self.settings.failure_threshold)
            if len(self._breakers) > MAX_BREAKERS:
                self._breakers.popitem(last=False)
        if ticket.generation != breaker.generation:
            return None
        match breaker.state:
            case BreakerState.CLOSED:
                return self._settle_closed(ticket.line, breaker, result, now)
            case BreakerState.HALF_OPEN:
                return self._settle_half_open(ticket.line, breaker, result, now)
            case BreakerState.OPEN:
                return None

    def _settle_closed(self, line: Line, breaker: _Breaker, result: Result, now: float) -> BreakerState | None:
        if result is Result.SUCCESS:
            del self._breakers[line]
        elif result is Result.FAILURE:
            failures, settings = breaker.failures, self.settings
            failures.append(now)
            in_time = not settings.interval_seconds or now - failures[0] <= settings.interval_seconds
            if len(failures) >= settings.failure_threshold and in_time:
                self._turn(breaker, BreakerState.OPEN, now)
                return BreakerState.OPEN
        return None

    def _settle_half_open(self, line: Line, breaker: _Breaker, result: Result, now: float) -> BreakerState | None:
        match result:
            case Result.SUCCESS:
                breaker.successes += 1
                if breaker.successes >= self.settings.half_open_max_requests:
                    del self._breakers[line]
                    return BreakerState.CLOSED
            case Result.FAILURE:
                self._turn(breaker, BreakerState.OPEN, now)
                return BreakerState.OPEN
            case Result.UNKNOWN:
                breaker.admitted -= 1
        return None

    def _turn(self, breaker: _Breaker, state: BreakerState, now: float) -> None:
        # Unique for all breakers of this provider, so that a ticket of one that was dropped and made anew says nothing.
        self._generations += 1
        breaker.turn(state, now, self._generations)

    def _rejected(self) -> Rejected:
        return Rejected(math.ceil(self.settings.open_seconds))


def result_of(status_code: int) -> Result:
    """Return what a provider's status says about its health."""
    return Result.FAILURE if status_code in FAILURE_STATUSES else Result.SUCCESS
