"""Counters, gauges and histograms that one thread counts and others read. Not their names and labels, which `families` has.

The library's own take a lock for every figure, so that any thread may count; a request counts in thirty figures, and the locks cost
more than the counting. Here control's loop alone counts, in plain numbers. A scrape runs in another thread and reads each number
whole: it may see the sum of a histogram with an observation whose bucket it does not see yet, as it may with the library's.

A *cell* is the figures of one combination of label values. A family without labels is its own only cell.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from time import time
from typing import cast

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

_Labels = dict[str, str]
_Remembered = tuple[Mapping[str, str], float, float]
"""An exemplar's labels, its figure and its Unix time: what an `Exemplar` is made of when somebody looks."""


class CounterCell:
    """A figure that only rises."""

    __slots__ = ("_exemplar", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._exemplar: _Remembered | None = None

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None) -> None:
        """Add `amount`, which is not negative, and remember `exemplar` as the last one."""
        self.value += amount
        if exemplar:
            self._exemplar = exemplar, amount, time()

    def samples(self, name: str, labels: _Labels) -> Iterator[Sample]:
        """Yield what is exposed."""
        yield Sample(name + "_total", labels, self.value, None, _shown(self._exemplar))


class GaugeCell:
    """A figure that rises and falls."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self) -> None:
        """Add one."""
        self.value += 1

    def dec(self) -> None:
        """Take one away."""
        self.value -= 1

    def set(self, value: float) -> None:
        """Let it be `value`."""
        self.value = float(value)

    def samples(self, name: str, labels: _Labels) -> Iterator[Sample]:
        """Yield what is exposed."""
        yield Sample(name, labels, self.value)


class HistogramCell:
    """How many observations there were up to each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        """Of each bucket alone; the last one's bound is infinite."""
        self._sum = 0.0
        self._exemplars: dict[int, _Remembered] = {}

    def observe(self, amount: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count `amount`, and remember `exemplar` as the last one of its bucket."""
        self._sum += amount
        bucket = bisect_left(self._bounds, amount)
        self._counts[bucket] += 1
        if exemplar:
            self._exemplars[bucket] = exemplar, amount, time()

    def samples(self, name: str, labels: _Labels) -> Iterator[Sample]:
        """Yield what is exposed."""
        count = 0.0
        for bucket, bound in enumerate((*self._bounds, float("inf"))):
            count += self._counts[bucket]
            exemplar = _shown(self._exemplars.get(bucket))
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]  # it has no annotations
            yield Sample(name + "_bucket", {**labels, "le": le}, count, None, exemplar)
        yield Sample(name + "_count", labels, count)
        yield Sample(name + "_sum", labels, self._sum)


def _shown(exemplar: _Remembered | None) -> Exemplar | None:
    if exemplar is None:
        return None
    labels, amount, at = exemplar
    return Exemplar(dict(labels), amount, at)


Cell = CounterCell | GaugeCell | HistogramCell


class Instrument[C: Cell](Collector):
    """A family: its cells by their label values."""

    kind: str
    """The type that is exposed."""

    def __init__(self, name: str, help_: str, label_names: Sequence[str]) -> None:
        self._name = name
        self._help = help_
        self._label_names = tuple(label_names)
        self._cells: dict[tuple[str, ...], C] = {}
        if not self._label_names:
            self._cells[()] = cast("C", self)

    @abstractmethod
    def _new(self) -> C:
        """Return a cell with nothing counted."""

    def labels(self, *values: str) -> C:
        """Return the cell with these label values, in the order of the labels."""
        cell = self._cells.get(values)
        if cell is None:
            if len(values) != len(self._label_names):
                message = f"{self._name} has the labels {self._label_names}, not {len(values)}"
                raise ValueError(message)
            # An enumeration's member finds its cell as well as its text does, but must not be exposed.
            cell = self._cells[tuple(map(str, values))] = self._new()
        return cell

    def remove(self, *values: str) -> None:
        """Forget a cell, if there is one."""
        self._cells.pop(values, None)

    def describe(self) -> list[Metric]:
        """Return the family without its figures."""
        return [Metric(self._name, self._help, self.kind)]

    def collect(self) -> list[Metric]:
        """Return the family with its figures."""
        metric = Metric(self._name, self._help, self.kind)
        # The copy is made at once, so that cells may come meanwhile.
        for values, cell in self._cells.copy().items():
            metric.samples += cell.samples(self._name, dict(zip(self._label_names, values, strict=True)))
        return [metric]


class Counter(CounterCell, Instrument[CounterCell]):
    """A family of counters."""

    kind = "counter"

    def __init__(self, name: str, help_: str, label_names: Sequence[str] = ()) -> None:
        CounterCell.__init__(self)
        # As the format wants it: the suffix belongs to the samples.
        Instrument.__init__(self, name.removesuffix("_total"), help_, label_names)

    def _new(self) -> CounterCell:
        return CounterCell()


class Gauge(GaugeCell, Instrument[GaugeCell]):
    """A family of gauges."""

    kind = "gauge"

    def __init__(self, name: str, help_: str, label_names: Sequence[str] = ()) -> None:
        GaugeCell.__init__(self)
        Instrument.__init__(self, name, help_, label_names)

    def _new(self) -> GaugeCell:
        return GaugeCell()


class Histogram(HistogramCell, Instrument[HistogramCell]):
    """A family of histograms."""

    kind = "histogram"

    def __init__(self, name: str, help_: str, label_names: Sequence[str] = (), *, bounds: Sequence[float]) -> None:
        HistogramCell.__init__(self, tuple(map(float, bounds)))
        Instrument.__init__(self, name, help_, label_names)

    def _new(self) -> HistogramCell:
        return HistogramCell(self._bounds)
