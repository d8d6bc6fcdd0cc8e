"""Where the daemon listens: several addresses, both families, and sockets that a service manager opened."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import DaemonMaker
from tests.support.daemon import ROOT, eventually, plain_environment

ASK = b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n"


def answer_of(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=30) as wire:
        wire.sendall(ASK)
        return wire.recv(65536)


def test_several_addresses_of_both_families_are_served(own_daemon: DaemonMaker) -> None:
    daemon = own_daemon(config={"listen": ["127.0.0.1:0", "[::1]:0"]})
    first, second = daemon.run["listen"]
    for host, address in (("127.0.0.1", first), ("::1", second)):
        assert answer_of(host, int(address.rpartition(":")[2])).startswith(b"HTTP/1.1 407 ")


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n" + ASK, id="PROXY protocol 1"),
        pytest.param(b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c" + bytes(12) + ASK, id="PROXY protocol 2"),
        pytest.param(b"\x05\x01\x00", id="SOCKS5"),
    ],
)
def test_neither_the_proxy_protocol_nor_socks_is_spoken(own_daemon: DaemonMaker, first: bytes) -> None:
    """Whoever reaches the listener could otherwise say whose address a request is from."""
    daemon = own_daemon(config={"decrypt": {"head_timeout_seconds": 1}})
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as wire:
        wire.sendall(first)
        answer = wire.recv(65536)
    assert answer == b"" or answer.split(b" ", 2)[1] in {b"400", b"408"}, answer


def test_sockets_of_a_service_manager_are_used_and_it_is_told_how_things_stand(own_daemon: DaemonMaker, tmp_path: Path) -> None:
    daemon = own_daemon(start=False)
    notices: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as proxy,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as second,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)

        def hear(word: str) -> None:
            while not any(word in notice for notice in notices):
                notices.append(manager.recv(4096).decode())

        # As systemd does: the sockets are the descriptors from 3 on, and the variables name the process that gets them.
        script = (
            "import os, sys; [os.dup2(int(d), 3 + n) for n, d in enumerate(sys.argv[1].split(','))]; "
            "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        high = [os.dup(each.fileno()) for each in (proxy, second)]
        with daemon.log_file.open("ab") as log:
            daemon.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", script, ",".join(map(str, high))),
                    *("-m", "aiproxyd", "run", "--config", str(daemon.config_file)),
                ],
                cwd=ROOT,
                env=plain_environment(LISTEN_FDS="2", LISTEN_FDNAMES="proxy:proxy", NOTIFY_SOCKET=str(tmp_path / "notify")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=high,
            )
        for each in high:
            os.close(each)
        hear("READY=1")
        eventually(daemon.is_ready, "the daemon")
        ports = [each.getsockname()[1] for each in (proxy, second)]
        assert daemon.run["listen"] == [f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}"]
        assert answer_of("127.0.0.1", ports[0]).startswith(b"HTTP/1.1 407 ")
        assert answer_of("::1", ports[1]).startswith(b"HTTP/1.1 407 ")
        notices.clear()
        daemon.reload()
        hear("RELOADING=1")
        hear("READY=1")
        daemon.terminate()
        hear("STOPPING=1")
        assert daemon.wait() == 0
        # The sockets are the service manager's: a client that comes now waits for the next daemon instead of being refused.
        socket.create_connection(("127.0.0.1", ports[0]), timeout=10).close()
