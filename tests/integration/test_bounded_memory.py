"""Bodies and streams of any size pass, and the proxy's memory does not follow them. 300 MB stand for 2 GB."""

import hashlib
import threading
import time

import pytest

from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"
HUGE = 300 << 20

# The request is read up to 32 MiB and the response up to 16 MiB; each may be held twice for a moment (coded and decoded), and
# the allocator keeps some of it.
MAX_GROWTH_BYTES = 160 << 20


class Watch:
    """Remembers the largest memory of a daemon's processes while it is open."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.first = self.now()
        self.largest = self.first

    def now(self) -> int:
        return sum(process.memory_info().rss for process in self._daemon.process_tree())

    @property
    def growth(self) -> int:
        return self.largest - self.first

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.largest = max(self.largest, self.now())

    def __enter__(self) -> "Watch":  # noqa: PYI034  (not meant to be subclassed)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.largest = max(self.largest, self.now())


def assert_serves(daemon: Daemon, model: str) -> None:
    with decrypted(daemon, HOST) as wire:
        assert wire.request("POST", "/v1/messages", HOST, message(model)).status == 200
    assert daemon.record(model)["outcome"] == "completed"


@pytest.mark.timeout(180)
def test_a_huge_request_passes_and_is_recorded(own_daemon, provider: FakeProvider, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    piece = (b"0123456789abcdef" * 65536)[: 1 << 20]
    head = b'{"model": "%b", "max_tokens": 1, "messages": [{"role": "user", "content": "' % model.encode()
    size = len(head) + HUGE
    digest = hashlib.sha256(head)
    with decrypted(daemon, HOST, timeout_seconds=120) as wire, Watch(daemon) as watch:
        wire.send(f"POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode() + head)
        for _ in range(HUGE // len(piece)):
            wire.send(piece)
            digest.update(piece)
        assert wire.read_answer().status == 200
    entry = provider.ledger.one(model)
    assert entry.request_sha256 == digest.hexdigest()
    assert watch.growth < MAX_GROWTH_BYTES, f"{watch.growth >> 20} MB"
    records = daemon.stored()
    deadline = time.monotonic() + 20
    while not (records and records[0]["ended_at"]) and time.monotonic() < deadline:
        records = daemon.stored()
    assert len(records) == 1
    assert records[0]["outcome"] == "completed"
    assert_serves(daemon, model + "-after")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("streamed", [False, True], ids=["document", "stream"])
def test_a_huge_answer_passes_and_is_recorded(
    own_daemon, provider: FakeProvider, model: str, engine: str, streamed: bool
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    events = 30000 if streamed else 1
    model += f"+events={events}+length={HUGE // 3}+coding=identity"
    digest, size = hashlib.sha256(), 0
    with decrypted(daemon, HOST, timeout_seconds=120) as wire, Watch(daemon) as watch:
        wire.request("POST", "/v1/messages", HOST, message(model, stream=streamed), read=False)
        for data in wire._body(wire.read_head()):
            digest.update(data)
            size += len(data)
    entry = provider.ledger.one(model)
    assert size == entry.response_bytes > HUGE // 3
    assert digest.hexdigest() == entry.response_sha256
    assert watch.growth < MAX_GROWTH_BYTES, f"{watch.growth >> 20} MB"
    # A stream's events are small, so it is read to its end; a document beyond its limit is not.
    assert daemon.record(model)["outcome"] == ("completed" if streamed else "parse_failed")


@pytest.mark.timeout(120)
def test_an_endless_stream_does_not_grow_the_proxy_and_others_are_served(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    endless = model + "+endless=1+length=8000+events=8+coding=identity"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", "/v1/messages", HOST, message(endless, stream=True), read=False)
        body = wire._body(wire.read_head())
        for _ in range(2000):
            next(body)
        with Watch(daemon) as watch:
            for _ in range(12_000):
                next(body)
            assert_serves(daemon, model + "-beside")
    assert watch.growth < 40 << 20, f"{watch.growth >> 20} MB"
    assert daemon.record(endless)["outcome"] == "client_aborted"


def test_a_client_that_does_not_read_stops_the_provider_not_the_proxy(
    own_daemon, provider: FakeProvider, model: str, engine: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    endless = model + "+endless=1+length=80000+events=8+coding=identity"
    with decrypted(daemon, HOST) as wire:
        wire.request("POST", "/v1/messages", HOST, message(endless, stream=True), read=False)
        wire.read_head()
        entry = provider.ledger.one(endless)
        with Watch(daemon) as watch:
            # Until the provider is stopped by backpressure: its count stands still.
            before, deadline = -1, time.monotonic() + 20
            while entry.response_bytes != before:
                assert time.monotonic() < deadline
                before = entry.response_bytes
                time.sleep(0.5)
            assert_serves(daemon, model + "-beside")
    assert entry.response_bytes < 64 << 20
    assert watch.growth < 64 << 20
    assert daemon.record(endless)["outcome"] == "client_aborted"
