"""What a service manager is told, on a socket as its own."""

import socket
from pathlib import Path

import pytest

from aiproxyd.service_manager import ServiceManager


def told(listener: socket.socket) -> list[str]:
    listener.settimeout(10)
    return listener.recv(4096).decode().split("\n")


@pytest.mark.parametrize("is_abstract", [False, True])
def test_each_turn_of_a_life_is_told(tmp_path: Path, is_abstract: bool) -> None:
    address = f"@{tmp_path.name}-{id(tmp_path)}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if is_abstract else address)
        manager = ServiceManager({"NOTIFY_SOCKET": address})
        manager.ready("serving on 127.0.0.1:1")
        assert told(listener) == ["READY=1", "STATUS=serving on 127.0.0.1:1"]
        with manager.reloading("serving"):
            reloading, clock = told(listener)
            assert reloading == "RELOADING=1"
            assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
        assert told(listener) == ["READY=1", "STATUS=serving"]
        manager.stopping()
        assert told(listener)[0] == "STOPPING=1"


def test_without_one_nothing_is_said_and_one_that_is_gone_is_no_error(tmp_path: Path) -> None:
    ServiceManager({}).ready("x")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("x")
