"""Twin of aiproxyd/telemetry/instruments.py. The library's own instruments are the reference: both are told the same."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from aiproxyd.model.outcome import Outcome
from aiproxyd.telemetry import instruments

BOUNDS = (0.5, 1, 2.5, 1e3, 1e6)

_AMOUNTS = st.one_of(st.sampled_from([0, 0.5, 1, 2.5, 1000, 1e6, 1e6 + 1, 1e300]), st.floats(0, 1e9), st.integers(0, 10**12))
_EXEMPLARS = st.none() | st.builds(lambda id_: {"interception_id": id_}, st.text('ab"\\\n', max_size=5))
_KINDS = st.sampled_from(["x", "y", 'a"\\\nb', Outcome.COMPLETED, "completed"])


@pytest.fixture(autouse=True, scope="module")
def _one_clock() -> Iterator[None]:
    """Exemplars hold the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instruments, "time", lambda: 7.25)
        patch.setattr(prometheus_client.metrics, "time", SimpleNamespace(time=lambda: 7.25))
        yield


@given(st.lists(st.tuples(_KINDS, _AMOUNTS, _EXEMPLARS), max_size=30))
def test_what_is_exposed_is_what_the_librarys_own_instruments_expose(
    told: list[tuple[str, float, dict[str, str] | None]],
) -> None:
    ours, reference = CollectorRegistry(), CollectorRegistry()
    made = (
        instruments.Counter("a_total", "A \\ B.", ("kind", "b")),
        instruments.Gauge("g", "G.", ("kind",)),
        instruments.Histogram("h_seconds", "H.", ("kind",), bounds=BOUNDS),
        instruments.Counter("alone_total", "Without labels."),
        instruments.Gauge("level", "Without labels."),
        instruments.Histogram("spread", "Without labels.", bounds=BOUNDS),
    )
    for instrument in made:
        ours.register(instrument)
    theirs = (
        prometheus_client.Counter("a_total", "A \\ B.", ("kind", "b"), registry=reference),
        prometheus_client.Gauge("g", "G.", ("kind",), registry=reference),
        prometheus_client.Histogram("h_seconds", "H.", ("kind",), registry=reference, buckets=BOUNDS),
        prometheus_client.Counter("alone_total", "Without labels.", registry=reference),
        prometheus_client.Gauge("level", "Without labels.", registry=reference),
        prometheus_client.Histogram("spread", "Without labels.", registry=reference, buckets=BOUNDS),
    )
    for counter, gauge, histogram, alone, level, spread in (made, theirs):
        for kind, amount, exemplar in told:
            counter.labels(kind, "b").inc(amount, exemplar)
            gauge.labels(kind).set(amount)
            gauge.labels("y").inc()
            gauge.labels(kind).dec()
            histogram.labels(kind).observe(amount, exemplar)
            alone.inc()
            level.set(amount)
            spread.observe(amount, exemplar)
        gauge.remove("x")
        gauge.remove("never met")
    assert generate_latest(ours) == generate_latest(reference)
    texts = [generate_openmetrics(registry) for registry in (ours, reference)]  # type: ignore[no-untyped-call]
    assert texts[0] == texts[1]


def test_a_cell_is_made_once_and_a_wrong_number_of_labels_is_a_fault() -> None:
    counter = instruments.Counter("a_total", "A.", ("x", "y"))
    assert counter.labels("1", "2") is counter.labels("1", "2")
    assert counter.labels("1", "2") is not counter.labels("2", "1")
    with pytest.raises(ValueError, match="labels"):
        counter.labels("1")


def test_two_families_of_one_name_are_a_fault() -> None:
    registry = CollectorRegistry()
    registry.register(instruments.Counter("a_total", "A."))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(instruments.Gauge("a_total", "A."))


def test_a_scrape_in_another_thread_meets_whole_series_while_new_ones_come() -> None:
    registry = CollectorRegistry()
    counter = instruments.Counter("a_total", "A.", ("x",))
    histogram = instruments.Histogram("h", "H.", ("x",), bounds=BOUNDS)
    registry.register(counter)
    registry.register(histogram)
    scraped: list[bytes] = []
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            scraped.append(generate_latest(registry))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        for number in range(3000):
            counter.labels(str(number)).inc()
            histogram.labels(str(number)).observe(number)
    finally:
        done.set()
        scraper.join()
    counts = [text.count(b"a_total{") for text in scraped]
    assert counts == sorted(counts)
    assert generate_latest(registry).count(b"a_total{") == 3000
