"""Twin of aiproxyd/telemetry/otlp.py: what a collector does to the spans on their way."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from aiproxyd.exceptions import ConfigError
from aiproxyd.telemetry import otlp
from aiproxyd.telemetry.otlp import Answer, Sender, create_exporter
from aiproxyd.telemetry.otlp_spans import Envelope, span
from aiproxyd.telemetry.settings import TracingSettings
from tests.support.otlp import grpc_collector, http_collector

COLLECTORS = pytest.mark.parametrize(("collector", "protocol"), [(grpc_collector, "grpc"), (http_collector, "http")])
ENVELOPE = Envelope({"service.name": "test"}, scope="aiproxyd", version="1", schema_url="")


def named(name: str) -> bytes:
    return span(name, b"t" * 16, b"s" * 8, b"", 1, 2, b"")


class Counts:
    """How many spans left, by result."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        self._changed = threading.Condition()

    def __call__(self, result: str, spans: int) -> None:
        with self._changed:
            self.counted[result] = self.counted.get(result, 0) + spans
            self._changed.notify_all()

    def wait_for(self, **counts: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.counted == counts, 30), self.counted


class Scripted:
    """An exporter that answers as it is told, and then accepts."""

    def __init__(self, *answers: Answer, on_send: Callable[[], Any] = lambda: None) -> None:
        self.requests: list[bytes] = []
        self.is_closed = False
        self._answers = itertools.chain(answers, itertools.repeat(Answer.ACCEPTED))
        self._on_send = on_send

    def send(self, request: bytes, timeout_seconds: float) -> tuple[Answer, str]:
        self.requests.append(request)
        self._on_send()
        answer = next(self._answers)
        return answer, "" if answer is Answer.ACCEPTED else "told to"

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(otlp, "MAX_RETRY_SECONDS", 0.05)


@COLLECTORS
def test_spans_arrive_without_anybody_closing_anything(collector: Any, protocol: str) -> None:
    counts = Counts()
    with collector() as (endpoint, received):
        settings = TracingSettings(endpoint=endpoint, protocol=protocol, headers={"X-Api-Key": "of the collector"})
        sender = Sender(create_exporter(settings), ENVELOPE, count=counts, interval_seconds=0.01)
        sender.put([named("a"), named("b")])
        received.wait_for("b")
        counts.wait_for(sent=2)
        sender.close()
    assert received.headers[0]["x-api-key"] == "of the collector"
    assert received.resources[0] == {"service.name": "test"}


@COLLECTORS
def test_what_came_before_the_end_is_sent(collector: Any, protocol: str) -> None:
    with collector() as (endpoint, received):
        sender = Sender(create_exporter(TracingSettings(endpoint=endpoint, protocol=protocol)), ENVELOPE, interval_seconds=3600)
        sender.put([named("last")])
        sender.close()
    assert [span.name for span in received.spans] == ["last"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_collector_that_is_not_there_holds_up_nothing(protocol: str) -> None:
    counts = Counts()
    settings = TracingSettings(endpoint="http://127.0.0.1:9", protocol=protocol)
    sender = Sender(create_exporter(settings), ENVELOPE, count=counts)
    sender.put([named("a")])
    sender.close()
    counts.wait_for(failed=1)


def test_a_path_that_the_collector_does_not_know_is_not_tried_again() -> None:
    counts = Counts()
    with http_collector() as (endpoint, received):
        settings = TracingSettings(endpoint=f"{endpoint}/elsewhere", protocol="http")
        sender = Sender(create_exporter(settings), ENVELOPE, count=counts, interval_seconds=0.01)
        sender.put([named("a")])
        counts.wait_for(failed=1)
        sender.close()
    assert not received.spans


def test_a_collector_that_is_busy_is_tried_again(quick: None) -> None:
    counts, exporter = Counts(), Scripted(Answer.BUSY, Answer.BUSY)
    with capture_logs() as logs:
        sender = Sender(exporter, ENVELOPE, count=counts, interval_seconds=0.01)
        sender.put([named("a")])
        counts.wait_for(sent=1)
        sender.close()
    assert len(exporter.requests) == 3
    assert len(set(exporter.requests)) == 1
    assert [log["log_level"] for log in logs] == ["warning", "info"]


def test_a_batch_is_given_up_after_a_while_and_the_next_has_its_turn(quick: None) -> None:
    counts, exporter = Counts(), Scripted(*[Answer.BUSY] * 1000)
    sender = Sender(exporter, ENVELOPE, count=counts, interval_seconds=0.01)
    sender.put([named("a")])
    counts.wait_for(failed=1)
    sender.put([named("b")])
    counts.wait_for(failed=2)
    sender.close()
    assert b"b" in exporter.requests[-1]


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, arrived, release = Counts(), threading.Event(), threading.Event()
    exporter = Scripted(on_send=lambda: (arrived.set(), release.wait(30)))
    monkeypatch.setattr(otlp, "MAX_QUEUED_BYTES", len(named("a")) * 3)
    sender = Sender(exporter, ENVELOPE, count=counts, interval_seconds=0.001)
    sender.put([named("0")])
    assert arrived.wait(30)
    # The collector does not answer: the queue is empty, and nobody empties it.
    sender.put([named("a"), named("b")])
    sender.put([named("c"), named("d")])
    sender.put([named("e")])
    sender.put([named("f")])
    counts.wait_for(dropped=3)
    release.set()
    counts.wait_for(dropped=3, sent=4)
    sender.close()
    assert exporter.is_closed


def test_a_batch_stays_below_what_collectors_take(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, exporter = Counts(), Scripted()
    monkeypatch.setattr(otlp, "MAX_BATCH_BYTES", len(named("a")) * 2)
    sender = Sender(exporter, ENVELOPE, count=counts, interval_seconds=3600)
    # More than a batch does not wait for the interval.
    sender.put([named(name) for name in "abcde"])
    counts.wait_for(sent=5)
    sender.close()
    assert len(exporter.requests) == 3


def test_a_collector_with_a_certificate_is_reached_by_its_own_root(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    credentials = authority.issue_cert("localhost")
    with grpc_collector(credentials) as (endpoint, received):
        for ca_file, expected in (("", []), (str(tmp_path / "ca.pem"), ["a"])):
            settings = TracingSettings(endpoint=endpoint, ca_file=ca_file)
            sender = Sender(create_exporter(settings), ENVELOPE)
            sender.put([named("a")])
            sender.close()
            assert [span.name for span in received.spans] == expected


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_ca_that_cannot_be_read_is_a_mistake_of_the_configuration(protocol: str) -> None:
    with pytest.raises(ConfigError, match="ca_file"):
        create_exporter(TracingSettings(endpoint="https://127.0.0.1:9", protocol=protocol, ca_file="/nonexistent"))


def test_a_ca_that_is_none_is_a_mistake_of_the_configuration(tmp_path: Any) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = TracingSettings(endpoint="https://127.0.0.1:9", protocol="http", ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="ca_file"):
        create_exporter(settings)
