"""A tunnel is bytes only: unchanged, both ways at once, each direction ended on its own."""

import hashlib
import socket
import threading
import time

import pytest

from tests.support.clients import Wire
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider
from tests.support.origins import Origin, pattern_sha256, receive_all, send_pattern

GIGABYTE = 1 << 30

pytestmark = pytest.mark.usefixtures("origins")


def tunnel(daemon: Daemon, authority: str) -> Wire:
    wire = Wire(daemon, timeout_seconds=60)
    assert wire.connect(authority).status == 200
    return wire


def test_a_gigabyte_down_arrives_unchanged(relay_daemon: Daemon) -> None:
    with tunnel(relay_daemon, "source.example.com:443") as wire:
        wire.send(b"%d\n" % GIGABYTE)
        size, digest = receive_all(wire.socket)
    assert size == GIGABYTE
    assert digest == pattern_sha256(GIGABYTE)


def test_a_gigabyte_up_arrives_unchanged_and_is_answered_after_its_end(relay_daemon: Daemon) -> None:
    with tunnel(relay_daemon, "sink.example.com:443") as wire:
        send_pattern(wire.socket, GIGABYTE)
        # The half-close must pass, and the way back must stay open.
        wire.socket.shutdown(socket.SHUT_WR)
        answer = wire.read_until(pattern_sha256(GIGABYTE).encode())
    assert answer.split()[0] == b"%d" % GIGABYTE


def test_both_directions_run_at_once(relay_daemon: Daemon) -> None:
    size = 64 << 20
    with tunnel(relay_daemon, "echo.example.com:443") as wire:
        sender = threading.Thread(target=lambda: (send_pattern(wire.socket, size), wire.socket.shutdown(socket.SHUT_WR)))
        sender.start()
        received, digest = receive_all(wire.socket)
        sender.join()
    assert received == size
    assert digest == pattern_sha256(size)


def test_an_origin_that_speaks_first_is_heard(relay_daemon: Daemon) -> None:
    with tunnel(relay_daemon, "greeter.example.com:443") as wire:
        assert wire.read_until(b"\r\n") == b"220 welcome\r\n"
        wire.send(b"HELO")
        assert wire.read_exactly(4) == b"HELO"


def test_bytes_sent_together_with_the_connect_are_not_lost(relay_daemon: Daemon) -> None:
    from tests.support.clients import credentials

    with Wire(relay_daemon) as wire:
        head = f"CONNECT echo.example.com:443 HTTP/1.1\r\nProxy-Authorization: {credentials()}\r\n\r\n"
        wire.send(head.encode() + b"early bird")
        assert wire.read_head().split(b" ", 2)[1] == b"200"
        assert wire.read_exactly(10) == b"early bird"


def test_a_slow_reader_does_not_make_the_proxy_keep_the_bytes(relay_daemon: Daemon) -> None:
    size = 256 << 20
    with tunnel(relay_daemon, "source.example.com:443") as wire:
        before = _memory(relay_daemon)
        wire.send(b"%d\n" % size)
        first = wire.socket.recv(1000)
        # As long as nothing is read, nothing may pile up: the figure stands still well below what was asked for.
        grown = 0
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            grown = max(grown, _memory(relay_daemon) - before)
            time.sleep(0.05)
        assert grown < 32 << 20
        received, _ = receive_all(wire.socket)
    assert received + len(first) == size


def test_a_client_that_leaves_ends_the_origin_s_connection(relay_daemon: Daemon, origins: dict[str, Origin]) -> None:
    with tunnel(relay_daemon, "sink.example.com:443") as wire:
        wire.send(b"x")
    # The origin's thread ends only when it sees the end.
    eventually(
        lambda: not any(thread.is_alive() for thread in origins["sink.example.com"]._serving), "the origin's connections to end"
    )


def test_a_hundred_tunnels_at_once(relay_daemon: Daemon) -> None:
    wires = [tunnel(relay_daemon, "echo.example.com:443") for _ in range(100)]
    try:
        for number, wire in enumerate(wires):
            wire.send(b"%03d" % number)
        assert [wire.read_exactly(3) for wire in wires] == [b"%03d" % number for number in range(100)]
    finally:
        for wire in wires:
            wire.close()


def test_tunnels_are_counted_by_kind(own_daemon, provider: FakeProvider) -> None:
    daemon = own_daemon()
    for host in ("files.example.com", "files.example.com", "api.openai.com"):
        with tunnel(daemon, f"{host}:443") as wire:
            wire.start_tls(host, daemon.ca_file if host == "api.openai.com" else provider.ca_file)
    daemon.wait_for_metric(2, "coder_ai_gateway_proxy_connect_sessions_total", type="tunneled")
    daemon.wait_for_metric(1, "coder_ai_gateway_proxy_connect_sessions_total", type="mitm")


def test_an_idle_tunnel_is_closed_after_its_time(own_daemon, origins: dict[str, Origin]) -> None:
    hosts = {"echo.example.com": f"127.0.0.1:{origins['echo.example.com'].port}"}
    daemon = own_daemon(config={"egress": {"hosts": hosts, "tunnel_idle_timeout_seconds": 1}})
    with tunnel(daemon, "echo.example.com:443") as wire:
        for _ in range(4):
            wire.send(b"x")
            assert wire.read_exactly(1) == b"x"
            time.sleep(0.4)
        # Then silence.
        assert wire.receive() == b""


def test_tls_inside_a_tunnel_is_the_origin_s_own(relay_daemon: Daemon, provider: FakeProvider) -> None:
    with tunnel(relay_daemon, "files.example.com:443") as wire:
        wire.start_tls("files.example.com", provider.ca_file)
        wire.send(b"GET /blob?pace=length=5000000 HTTP/1.1\r\nHost: files.example.com\r\nAccept-Encoding: identity\r\n\r\n")
        answer = wire.read_answer()
    entry = provider.ledger.entries("length=5000000")[-1]
    assert hashlib.sha256(answer.body).hexdigest() == entry.response_sha256
    assert len(answer.body) == 5_000_000


def _memory(daemon: Daemon) -> int:
    return sum(process.memory_info().rss for process in daemon.process_tree())
