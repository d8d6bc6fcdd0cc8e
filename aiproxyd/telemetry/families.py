"""What a metric family is: its name, type, labels and worst case, as data that registers itself. Not the families themselves.

The registry, the page `docs/metrics.md` and the tests are made from the same constants, so none of them can say something else.

Strategy for label values: those an operator chooses (providers, endpoints) are taken as they are. Those a client or a provider
chooses (models, tools, hosts) are cut to printable text and admitted in the order they come, up to a limit; the rest is `other`.
First come, first served is unfair to whoever comes late, but it needs no clock and a series that exists never changes its meaning.
"""

import dataclasses
import enum
import math

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from aiproxyd.telemetry.instruments import Counter, Gauge, Histogram

OTHER = "other"
"""Stands for every label value beyond a limit."""

MAX_LABEL_CHARACTERS = 100
"""A longer value is `other`: model and tool names of all providers stay far below, and a cut name would be a wrong name."""


class Kind(enum.StrEnum):
    """Prometheus' types, as far as they are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """All series of one name."""

    name: str
    """As it is exposed; a counter's ends in `_total`."""
    kind: Kind
    help: str
    """One sentence; the `HELP` line and the docs page."""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without `+Inf`."""
    worst_case: tuple[tuple[int, str], ...] = ()
    """Factors of the largest possible number of label combinations, each with what it counts. Empty for one series."""

    @property
    def max_children(self) -> int:
        """The largest possible number of label combinations."""
        return math.prod(count for count, _ in self.worst_case)

    @property
    def max_series(self) -> int:
        """The largest possible number of series: a histogram has one a bucket, `+Inf`, a sum and a count."""
        return self.max_children * (len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1)

    def with_labels(self, names: tuple[str, ...]) -> "Family":
        """Return this family with further labels behind its own."""
        return dataclasses.replace(self, labels=self.labels + names) if names else self

    def register(self, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
        """Register and return this family, whatever its kind."""
        match self.kind:
            case Kind.COUNTER:
                return self.counter(registry)
            case Kind.GAUGE:
                return self.gauge(registry)
            case Kind.HISTOGRAM:
                return self.histogram(registry)

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Register and return this family, which is a counter."""
        assert self.kind is Kind.COUNTER
        return _registered(Counter(self.name, self.help, self.labels), registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """Register and return this family, which is a gauge."""
        assert self.kind is Kind.GAUGE
        return _registered(Gauge(self.name, self.help, self.labels), registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Register and return this family, which is a histogram."""
        assert self.kind is Kind.HISTOGRAM
        return _registered(Histogram(self.name, self.help, self.labels, bounds=self.buckets), registry)


def _registered[T: Collector](collector: T, registry: CollectorRegistry) -> T:
    registry.register(collector)
    return collector


def counter(name: str, help_: str, labels: tuple[str, ...] = (), worst_case: tuple[tuple[int, str], ...] = ()) -> Family:
    """Return a counter's family."""
    return Family(name=name, kind=Kind.COUNTER, help=help_, labels=labels, worst_case=worst_case)


def gauge(name: str, help_: str, labels: tuple[str, ...] = (), worst_case: tuple[tuple[int, str], ...] = ()) -> Family:
    """Return a gauge's family."""
    return Family(name=name, kind=Kind.GAUGE, help=help_, labels=labels, worst_case=worst_case)


def histogram(
    name: str,
    help_: str,
    labels: tuple[str, ...] = (),
    worst_case: tuple[tuple[int, str], ...] = (),
    *,
    buckets: tuple[float, ...],
) -> Family:
    """Return a histogram's family."""
    return Family(name=name, kind=Kind.HISTOGRAM, help=help_, labels=labels, buckets=buckets, worst_case=worst_case)


def label_text(value: str, *, empty: str = "unknown") -> str:
    """Return `value` as a label value: `empty` when it says nothing, `other` when it is too long or not printable."""
    if not value:
        return empty
    if len(value) > MAX_LABEL_CHARACTERS or not value.isprintable():
        return OTHER
    return value


class Admission:
    """Admits the first `limit` distinct values of a label; every later one is `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted: set[str] = set()

    def label(self, value: str) -> str:
        """Return the label value that would stand for `value`, and admit nothing."""
        text = label_text(value)
        return text if text in self._admitted or len(self._admitted) < self._limit else OTHER

    def admit(self, value: str) -> str:
        """Return the label value that stands for `value` from this call on."""
        text = self.label(value)
        if text != OTHER:
            self._admitted.add(text)
        return text


def create_registry() -> CollectorRegistry:
    """Return a registry for everything the daemon exposes, its own process included.

    The library's `_created` series are switched off, which it can do for the whole process only: they double the series, and
    no name of them is part of the contract.
    """
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations at all
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    return registry
