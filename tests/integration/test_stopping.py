"""SIGTERM lets streams finish, a second one does not wait; nothing recorded is lost."""

import time

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"


def open_stream(daemon: Daemon, wire: Wire, model: str):
    wire.connect(f"{HOST}:443")
    wire.start_tls(HOST, daemon.ca_file)
    wire.request("POST", "/v1/messages", HOST, message(model, stream=True), (("Accept-Encoding", "identity"),), read=False)
    events = wire.events(wire.read_head())
    next(events)
    return events


def refuses(daemon: Daemon, port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_sigterm_closes_the_listener_at_once_and_lets_the_stream_finish(
    own_daemon, provider: FakeProvider, model: str, engine: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "drain_timeout_seconds": 30})
    gate = provider.gate(model)
    model += f"+gate={model}"
    port = daemon.port
    with Wire(daemon) as wire, decrypted(daemon, HOST) as idle:
        assert idle.request("GET", "/v1/models", HOST).status == 200
        events = open_stream(daemon, wire, model)
        daemon.terminate()
        eventually(lambda: refuses(daemon, port), "the listener to be closed")
        # A connection without a request has nothing to finish.
        assert idle.receive() == b""
        assert daemon.process.poll() is None
        gate.release(100)
        rest = list(events)
        assert b"message_stop" in rest[-1]
        assert daemon.wait(30) == 0
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="hello")


def test_close_is_idempotent_and_a_second_sigterm_closes_what_is_open(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "drain_timeout_seconds": 60})
    port = daemon.port
    with Wire(daemon) as wire:
        open_stream(daemon, wire, model + "+stall=1")
        daemon.terminate()
        eventually(lambda: refuses(daemon, port), "the listener to be closed")
        started = time.monotonic()
        daemon.terminate()
        daemon.wait(30)
        assert time.monotonic() - started < 20
    record = daemon.record(model)
    assert record["outcome"] == "interrupted"


def test_a_stream_that_outlasts_the_drain_is_closed_and_recorded(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "drain_timeout_seconds": 1})
    with Wire(daemon) as wire:
        open_stream(daemon, wire, model + "+stall=1")
        assert daemon.stop(30) == 0
    assert daemon.record(model)["outcome"] == "interrupted"


def test_an_idle_daemon_stops_at_once_and_leaves_no_process(own_daemon) -> None:
    daemon: Daemon = own_daemon(workers=2)
    family = daemon.process_tree()
    assert len(family) >= 3
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < 8
    eventually(
        lambda: not any(member.is_running() and member.status() != "zombie" for member in family), "every process to end"
    )
    assert not (daemon.data_dir / "run.json").exists()


def test_ctrl_c_on_a_terminal_stops_too(own_daemon) -> None:
    import signal

    daemon: Daemon = own_daemon()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait(20) == 0
    assert "Traceback" not in daemon.log()


def test_a_second_daemon_on_the_same_folder_is_refused(own_daemon) -> None:
    daemon: Daemon = own_daemon()
    done = daemon.command("run", "--listen", "127.0.0.1:0", check=False)
    assert done.returncode == 1
    assert str(daemon.data_dir) in done.stderr
    assert "Traceback" not in done.stderr
    assert daemon.is_ready()


def test_the_log_of_a_whole_life_holds_no_traceback_and_no_secret(
    own_daemon, provider: FakeProvider, model: str, engine: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "logging": {"level": "debug"}})
    with decrypted(daemon, HOST) as wire:
        secret = (("x-api-key", "sk-ant-very-secret-0123456789"), ("Authorization", "Bearer sk-also-secret"))
        wire.request("POST", "/v1/messages", HOST, message(model, "a prompt nobody logs"), secret)
    daemon.records(model, count=1)
    assert daemon.stop() == 0
    log = daemon.log()
    assert "Traceback" not in log
    for text in ("very-secret", "also-secret", "alice-token", "YWxpY2U6", "a prompt nobody logs"):
        assert text not in log
    stored = b"".join(path.read_bytes() for path in daemon.data_dir.rglob("*") if path.is_file())
    assert b"very-secret" not in stored
