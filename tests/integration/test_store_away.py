"""The store is locked, full or gone: traffic does not notice, and afterwards every record is there once."""

import sqlite3

import pytest

from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"


def send(daemon: Daemon, prefix: str, numbers: range) -> None:
    with decrypted(daemon, HOST) as wire:
        for number in numbers:
            answer = wire.request("POST", "/v1/messages", HOST, message(f"{prefix}-{number:03}"))
            assert answer is not None
            assert answer.status == 200


@pytest.mark.timeout(180)
def test_a_locked_store_is_caught_up_exactly_once(own_daemon, provider: FakeProvider, model: str) -> None:
    daemon: Daemon = own_daemon()
    send(daemon, model, range(10))
    daemon.records(model, count=10)
    lock = sqlite3.connect(daemon.data_dir / "aiproxyd.sqlite3", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        send(daemon, model, range(10, 60))
        eventually(lambda: not daemon.is_ready(), "/readyz to say so", 60)
        assert b"store" in daemon.get("/readyz")[1]
        # Metrics do not wait for the store.
        daemon.wait_for_metric(60, "coder_ai_gateway_interceptions_total")
        send(daemon, model, range(60, 70))
        lock.execute("ROLLBACK")
    finally:
        lock.close()
    records = daemon.records(model, count=70, timeout_seconds=60)
    for record, entry in zip(records, provider.ledger.entries(model), strict=True):
        assert_matches(record, entry, prompt="hello")
    eventually(daemon.is_ready, "readiness")


@pytest.mark.timeout(180)
def test_what_was_not_stored_before_a_stop_is_stored_after_the_next_start(
    own_daemon, provider: FakeProvider, model: str
) -> None:
    daemon: Daemon = own_daemon()
    send(daemon, model, range(5))
    daemon.records(model, count=5)
    lock = sqlite3.connect(daemon.data_dir / "aiproxyd.sqlite3", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        send(daemon, model, range(5, 25))
        daemon.kill_control()
        lock.execute("ROLLBACK")
    finally:
        lock.close()
    daemon.start()
    records = daemon.records(model, count=25, timeout_seconds=60)
    for record, entry in zip(records, provider.ledger.entries(model), strict=True):
        assert_matches(record, entry, prompt="hello")


def test_ingested_segments_do_not_pile_up(own_daemon, model: str) -> None:
    daemon: Daemon = own_daemon()
    send(daemon, model, range(20))
    daemon.records(model, count=20)
    daemon.stop()
    # Nothing is left to be read, so nothing is kept.
    left = sum(path.stat().st_size for path in (daemon.data_dir / "journal").glob("*.jsonl"))
    assert left < 100_000


def test_a_store_of_a_newer_version_is_refused_in_one_sentence(own_daemon) -> None:
    daemon: Daemon = own_daemon()
    daemon.stop()
    with sqlite3.connect(daemon.data_dir / "aiproxyd.sqlite3") as store:
        store.execute("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    store.close()
    done = daemon.command("run", check=False)
    assert done.returncode == 1
    assert "newer" in done.stderr
    assert "Traceback" not in done.stderr
