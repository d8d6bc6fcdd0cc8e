"""What a dialect of metrics hears of: a request and its answer, once both are over. Not how it is counted."""

from typing import NamedTuple, Protocol

from aiproxyd.model.observation import InterceptionEnded, InterceptionStarted, PassthroughEnded, PassthroughStarted
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.pricing import Cost
from aiproxyd.telemetry.series import Combination

# OpenMetrics lets an exemplar's labels have 128 characters in all.
_MAX_EXEMPLAR_ID = 100


class Exchange(NamedTuple):
    """An intercepted request that ended."""

    started: InterceptionStarted
    labels: Combination
    """Its labels, within the limits."""
    streaming: bool
    ended: InterceptionEnded
    cost: Cost | None

    @property
    def is_success(self) -> bool:
        """Whether it completed."""
        return self.ended.outcome is Outcome.COMPLETED

    @property
    def has_usage(self) -> bool:
        """Whether token figures are known."""
        return self.ended.usage_source is not UsageSource.NONE

    @property
    def seconds_per_token(self) -> float | None:
        """As the function of that name."""
        return seconds_per_token(self.ended, streaming=self.streaming)


def seconds_per_token(ended: InterceptionEnded, *, streaming: bool) -> float | None:
    """Return the mean seconds between output tokens of a stream, None where that cannot be told."""
    tokens = ended.usage.output_tokens - 1
    if not streaming or ended.first_output_seconds is None or tokens < 1 or ended.outcome is not Outcome.COMPLETED:
        return None
    return max(0.0, ended.duration_seconds - ended.first_output_seconds) / tokens


class Dialect(Protocol):
    """A family of metric names, fed beside Coder's."""

    def intercepted(self, exchange: Exchange, exemplar: dict[str, str] | None) -> None:
        """Count an intercepted request that ended."""

    def passed_through(self, started: PassthroughStarted, ended: PassthroughEnded) -> None:
        """Count a request to another endpoint that ended."""


def exemplar_of(interception_id: str) -> dict[str, str] | None:
    """Return the exemplar that leads to an interception's record."""
    return {"interception_id": interception_id} if 0 < len(interception_id) <= _MAX_EXEMPLAR_ID else None
