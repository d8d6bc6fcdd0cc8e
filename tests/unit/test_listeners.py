"""Sockets of the configuration and of a service manager."""

import os
import socket
import subprocess
import sys

import pytest

from aiproxyd.exceptions import AiproxydError
from aiproxyd.listeners import inherited, listen, name_of, open_listeners

# Moves descriptors to where a service manager puts them, says so in the environment, and opens.
_CHILD = """
import asyncio, os, sys
from aiproxyd.listeners import name_of, open_listeners
taken = [int(text) for text in sys.argv[1].split(",")]
for number, descriptor in enumerate(taken):
    os.dup2(descriptor, 50 + number)
for number in range(len(taken)):
    os.dup2(50 + number, 3 + number, inheritable=True)
os.environ.update(LISTEN_PID=sys.argv[3] or str(os.getpid()), LISTEN_FDS=str(len(taken)), LISTEN_FDNAMES=sys.argv[2])
found = asyncio.run(open_listeners(proxy=["127.0.0.1:0"], tls=[], admin="127.0.0.1:0", environ=os.environ, is_held=lambda: False))
print(*(",".join(name_of(each) for each in kind) for kind in (found.proxy, found.tls, found.admin)), sep=";")
assert not any(each.get_inheritable() for kind in found for each in kind)
assert "LISTEN_FDS" not in os.environ
"""


def as_child(descriptors: list[int], names: str, pid: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CHILD, ",".join(map(str, descriptors)), names, pid],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_sockets_of_a_service_manager_are_taken_by_their_names() -> None:
    with listen("127.0.0.1:0") as first, listen("[::1]:0") as second, listen("127.0.0.1:0") as tls:
        done = as_child([first.fileno(), tls.fileno(), second.fileno()], "proxy:tls:aiproxyd.socket")
        proxy, over_tls, admin = done.stdout.strip().split(";")
        assert proxy == f"{name_of(first)},{name_of(second)}", done.stderr
        assert over_tls == name_of(tls)
        assert admin.startswith("127.0.0.1:")  # none was passed, so it is opened


def test_sockets_that_were_meant_for_another_process_are_left_alone() -> None:
    with listen("127.0.0.1:0") as passed:
        done = as_child([passed.fileno()], "proxy", pid="1")
        assert done.stdout.partition(";")[0] not in {"", name_of(passed)}, done.stderr


def test_what_is_no_tcp_listener_is_refused() -> None:
    with socket.socket() as deaf:
        assert "socket 1 of the service manager ('x') is no TCP listener" in as_child([deaf.fileno()], "x").stderr
    left, right = socket.socketpair()
    with left, right:
        assert "no TCP listener" in as_child([left.fileno()], "").stderr


def test_without_a_service_manager_there_is_nothing() -> None:
    for environ in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}):
        found = inherited(environ)
        assert not any(found)
        assert not environ


async def test_several_addresses_of_both_families() -> None:
    found = await open_listeners(
        proxy=["127.0.0.1:0", "[::1]:0"], tls=["127.0.0.1:0"], admin="[::1]:0", environ={}, is_held=lambda: False
    )
    try:
        assert [name_of(each).rpartition(":")[0] for each in found.proxy] == ["127.0.0.1", "[::1]"]
        for each in (*found.proxy, *found.tls, *found.admin):
            host, port = each.getsockname()[:2]
            socket.create_connection((host, port), timeout=10).close()
    finally:
        found.close()


async def test_clients_are_handed_over_with_their_first_bytes() -> None:
    found = await open_listeners(
        proxy=["127.0.0.1:0"],
        tls=["127.0.0.1:0"],
        gateway=["127.0.0.1:0"],
        admin="127.0.0.1:0",
        environ={},
        is_held=lambda: False,
    )
    try:
        for listener in found.of_workers:
            with socket.create_connection(listener.getsockname()) as silent:
                with pytest.raises(BlockingIOError):
                    listener.accept()
                silent.sendall(b"CONNECT ")
                connection, _ = listener.accept()
                with connection:
                    assert connection.recv(100) == b"CONNECT "
        with socket.create_connection(found.admin[0].getsockname()):
            found.admin[0].accept()[0].close()
    finally:
        found.close()


async def test_an_address_that_is_taken_leaves_nothing_open() -> None:
    with listen("127.0.0.1:0") as taken, pytest.raises(AiproxydError, match="Address already in use"):
        await open_listeners(
            proxy=["127.0.0.1:0", name_of(taken)], tls=[], admin="127.0.0.1:0", environ={}, is_held=lambda: False
        )


async def test_who_is_about_to_leave_is_waited_for() -> None:
    taken = listen("127.0.0.1:0")
    asked = []

    def is_held() -> bool:
        asked.append(True)
        taken.close()
        return True

    found = await open_listeners(proxy=[name_of(taken)], tls=[], admin="127.0.0.1:0", environ={}, is_held=is_held)
    assert asked
    found.close()
