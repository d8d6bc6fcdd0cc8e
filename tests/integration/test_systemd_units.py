"""The daemon as the units of examples/systemd start it: systemd's own program opens the sockets and passes them, and is told when it is ready."""

import configparser
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.promises.checkout import ROOT
from tests.support.daemon import eventually, plain_environment

pytestmark = pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="it is in Debian's systemd package")

UNITS = ROOT / "examples" / "systemd"


def setting(unit: str, name: str) -> str:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names are as they are written
    parser.read(UNITS / unit)
    return parser["Socket"][name]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """Where the daemon says how it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        yield listener


def test_the_daemon_takes_the_sockets_of_the_units_and_says_that_it_is_ready_and_that_it_stops(
    tmp_path: Path, told: socket.socket
) -> None:
    proxy, admin = free_port(), free_port()
    names = ":".join(setting(unit, "FileDescriptorName") for unit in ("aiproxyd.socket", "aiproxyd-admin.socket"))
    environ = plain_environment(
        AIPROXYD_DATA_DIR=str(tmp_path / "state"),
        # Addresses that nobody could listen on: sockets that are passed stand in their place.
        AIPROXYD_LISTEN="192.0.2.1:1",
        NOTIFY_SOCKET=str(tmp_path / "notify"),
    )
    process = subprocess.Popen(
        [
            "systemd-socket-activate",
            f"--listen=127.0.0.1:{proxy}",
            f"--listen=127.0.0.1:{admin}",
            f"--fdname={names}",
            *(f"--setenv={name}" for name in environ),
            sys.executable, "-m", "aiproxyd", "run", "--config", str(UNITS / "config.yaml"),
        ],
        cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def connected() -> socket.socket | None:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", proxy), timeout=30)
            return None

        # The first connection starts the daemon, and waits in the socket until it is there.
        with eventually(connected, "systemd's socket") as waiting:
            said = told.recv(4096).decode()
            assert said.startswith("READY=1\n")
            assert f"127.0.0.1:{proxy}" in said
            waiting.settimeout(30)
            waiting.sendall(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com:443\r\n\r\n")
            assert waiting.recv(4096).startswith(b"HTTP/1.1 407")
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=30) as answer:
            assert json.load(answer)["ready"] is True
        psutil.Process(process.pid).terminate()
        assert told.recv(4096).decode().startswith("STOPPING=1\n")
        assert process.wait(60) == 0
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in psutil.Process(process.pid).children(recursive=True):
                member.kill()
            process.kill()
        process.wait()
