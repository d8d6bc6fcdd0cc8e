"""Whatever is killed, each finished request has exactly one record and each unfinished one ends as `interrupted`."""

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from typing import Self

import pytest

from tests.support.clients import Wire, message
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches, tokens_of
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"


class Load:
    """Threads that send one request after the other, and remember how each ended for them."""

    def __init__(self, daemon: Daemon, prefix: str, threads: int = 6) -> None:
        self._daemon = daemon
        self._prefix = prefix
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self.finished: set[str] = set()
        """Models of requests whose answer the client saw whole."""
        self.broken: set[str] = set()
        """Models of requests that were sent and whose answer the client did not see whole."""
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Wire(self._daemon) as wire:
                    if wire.connect(f"{HOST}:443").status != 200:
                        continue
                    wire.start_tls(HOST, self._daemon.ca_file)
                    for _ in range(5):
                        if self._stop.is_set():
                            return
                        self._ask(wire)
            except (OSError, EOFError):
                # The proxy is down for a moment; without a pause the threads would only fight for the processor.
                time.sleep(0.01)

    def _ask(self, wire: Wire) -> None:
        number = next(self._numbers)
        model = f"{self._prefix}-{number:05}+events=6+pause={0.01 * (number % 4)}"
        try:
            wire.request("POST", "/v1/messages", HOST, message(model, stream=number % 3 > 0))
        except BaseException:
            self.broken.add(model)
            raise
        self.finished.add(model)


def assert_each_request_is_accounted_for(daemon: Daemon, provider: FakeProvider, load: Load, prefix: str) -> None:
    def settled() -> bool:
        records = daemon.stored(prefix)
        return load.finished <= {record["model"] for record in records} and all(record["ended_at"] for record in records)

    with contextlib.suppress(TimeoutError):  # seldom: an answer whose record died with its name, see below
        eventually(settled, "every record to be there and ended", 30)
    records: dict[str, dict] = {}
    for record in daemon.stored():
        if record["model"].startswith(prefix):
            assert record["model"] not in records, f"two records of {record['model']}"
            records[record["model"]] = record
            assert record["ended_at"], record
    entries = {entry.model: entry for entry in provider.ledger.entries(prefix)}
    interrupted = 0
    for model in load.finished:
        record, entry = records.get(model), entries[model]
        if record is None or record["outcome"] == "interrupted":
            # Its last bytes were delivered in the instant in which the process died: the client has its answer, and the
            # process could not say so any more. Without a record of its name it is one of the nameless below.
            interrupted += 1
            continue
        assert_matches(record, entry, prompt="hello")
    for model in load.broken & records.keys():
        assert records[model]["outcome"] in {"interrupted", "client_aborted", "upstream_aborted", "completed"}
        if records[model]["outcome"] == "completed":
            assert tokens_of(records[model])["output_tokens"] == entries[model].usage["output_tokens"]
    # A request that reached the provider was written down before it left: none is missing. Its model is known from the body,
    # which is not on disk by then; what died in between ends without one.
    nameless = [record for record in daemon.stored() if not record["model"] or "unknown" in record["model"]]
    assert {record["outcome"] for record in nameless} <= {"interrupted"}
    missing = sorted(entries.keys() - records.keys())
    assert len(missing) <= len(nameless), missing
    assert len(load.finished) > 0
    assert interrupted <= len(records) // 10


def assert_gauges_return_to_zero(daemon: Daemon) -> None:
    daemon.wait_for_metric(0, "coder_ai_gateway_proxy_inflight_mitm_requests")
    daemon.wait_for_metric(0, "coder_ai_gateway_interceptions_inflight")


@pytest.mark.timeout(240)
def test_killing_workers_twenty_times_loses_and_doubles_nothing(
    own_daemon, provider: FakeProvider, model: str, engine: str
) -> None:
    # Four of them, because one that dies young is replaced after a growing pause.
    daemon: Daemon = own_daemon(workers=4, config={"decrypt": {"engine": engine}})
    chance = random.Random(engine)
    killed: set[int] = set()
    with Load(daemon, model) as load:
        for _ in range(20):
            time.sleep(chance.uniform(0.05, 0.4))
            alive = eventually(lambda: [pid for pid in daemon.workers if pid not in killed], "a worker to kill", 60)
            victim = chance.choice(alive)
            killed.add(victim)
            os.kill(victim, signal.SIGKILL)
        eventually(lambda: len([pid for pid in daemon.workers if pid not in killed]) == 4, "all successors", 60)
    assert_each_request_is_accounted_for(daemon, provider, load, model)
    assert_gauges_return_to_zero(daemon)
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total") == metrics.total(
        "coder_ai_gateway_proxy_mitm_responses_total"
    )


@pytest.mark.timeout(300)
def test_killing_control_ten_times_loses_and_doubles_nothing(own_daemon, provider: FakeProvider, model: str) -> None:
    daemon: Daemon = own_daemon(workers=1)
    chance = random.Random(7)
    with Load(daemon, model) as load:
        for _ in range(10):
            time.sleep(chance.uniform(0.05, 0.5))
            daemon.kill_control()
            daemon.start()
        eventually(lambda: len(load.finished) > 5, "some requests", 30)
    assert_each_request_is_accounted_for(daemon, provider, load, model)
    assert_gauges_return_to_zero(daemon)


def test_a_request_in_flight_when_its_worker_dies_ends_as_interrupted(
    own_daemon, provider: FakeProvider, model: str, engine: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    model += f"+gate={model}"
    with Wire(daemon) as wire:
        wire.connect(f"{HOST}:443")
        wire.start_tls(HOST, daemon.ca_file)
        wire.request("POST", "/v1/messages", HOST, message(model, stream=True), (("Accept-Encoding", "identity"),), read=False)
        next(wire.events(wire.read_head()))
        # What was told so far is on disk before the worker dies: the prompt, and the figures of message_start.
        eventually(lambda: daemon.stored(model), "the open record")
        daemon.kill_worker()
        with contextlib.suppress(OSError, EOFError):
            while wire.receive():
                pass
    record = daemon.record(model)
    assert record["outcome"] == "interrupted"
    assert [row["prompt"] for row in record["user_prompts"]] == ["hello"]
    daemon.wait_for_metric(1, "coder_ai_gateway_accounting_outcomes_total", outcome="interrupted")
    assert_gauges_return_to_zero(daemon)
    provider.gate(model.partition("+")[0]).release(100)


def test_workers_finish_their_streams_when_control_dies(own_daemon, provider: FakeProvider, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    gate_name = model
    model += f"+gate={model}+events=6"
    gate = provider.gate(gate_name)
    with Wire(daemon) as wire:
        wire.connect(f"{HOST}:443")
        wire.start_tls(HOST, daemon.ca_file)
        wire.request("POST", "/v1/messages", HOST, message(model, stream=True), (("Accept-Encoding", "identity"),), read=False)
        events = wire.events(wire.read_head())
        next(events)
        orphan = daemon.workers[0]
        daemon.kill_control()
        gate.release(100)
        rest = list(events)
    assert b"message_stop" in rest[-1]
    import psutil

    eventually(
        lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE, "the worker's end"
    )
    daemon.start()
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="hello")


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(own_daemon, model: str) -> None:
    daemon: Daemon = own_daemon(workers=2)
    victim = daemon.kill_worker()
    eventually(lambda: len(daemon.workers) == 2 and victim not in daemon.workers, "a successor")
    for number in range(10):
        with Wire(daemon) as wire:
            wire.connect(f"{HOST}:443")
            wire.start_tls(HOST, daemon.ca_file)
            wire.request("POST", "/v1/messages", HOST, message(f"{model}-{number}"))
    assert len(daemon.records(model, count=10)) == 10
