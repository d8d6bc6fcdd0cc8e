import asyncio
import errno
import socket

import pytest

from aiproxyd.mitm import listener as module
from aiproxyd.mitm.listener import Listener


class Listening:
    """A listening socket that counts how often it was asked, and has no room for the first clients."""

    def __init__(self, listening: socket.socket, *, refusals: int = 0) -> None:
        self.listening = listening
        self.accepts = 0
        self.refusals = refusals

    def accept(self):
        self.accepts += 1
        if self.accepts <= self.refusals:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.listening.accept()

    def fileno(self):
        return self.listening.fileno()

    def setblocking(self, flag):
        self.listening.setblocking(flag)


class Clients:
    """Who was admitted."""

    def __init__(self) -> None:
        self.addresses: list[tuple[str, int]] = []
        self.connections: list[socket.socket] = []

    def admit(self, connection: socket.socket, address: tuple[str, int]) -> None:
        self.addresses.append(address)
        self.connections.append(connection)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.addresses) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def clients():
    clients = Clients()
    yield clients
    for connection in clients.connections:
        connection.close()


async def test_each_client_is_admitted_once_with_its_address_and_nobody_asks_in_vain(server, clients):
    listening = Listening(server)
    listener = Listener(listening, clients.admit, asyncio.get_running_loop())
    callers = [socket.create_connection(server.getsockname()) for _ in range(3)]
    try:
        listener.start()
        await clients.until(3)
        assert clients.addresses == [caller.getsockname() for caller in callers]
        assert all(not connection.getblocking() for connection in clients.connections)
        assert all(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for connection in clients.connections)
        assert listening.accepts == 3
    finally:
        listener.stop()
        for caller in callers:
            caller.close()


async def test_a_client_that_another_worker_took_is_nobodys_business(server, clients):
    listening = Listening(server)
    listener = Listener(listening, clients.admit, asyncio.get_running_loop())
    listener.start()
    server.setblocking(False)
    listener._accept()
    with socket.create_connection(server.getsockname()):
        await clients.until(1)
    listener.stop()
    assert listening.accepts == 2


async def test_nobody_is_accepted_after_the_end(server, clients):
    listener = Listener(server, clients.admit, asyncio.get_running_loop())
    listener.start()
    listener.stop()
    with socket.create_connection(server.getsockname()):
        for _ in range(3):
            await asyncio.sleep(0)
    assert clients.addresses == []


async def test_nobody_is_accepted_while_there_are_no_descriptors_and_then_again(server, clients, caplog, monkeypatch):
    monkeypatch.setattr(module, "_ACCEPT_PAUSE_SECONDS", 0.05)
    listening = Listening(server, refusals=1)
    listener = Listener(listening, clients.admit, asyncio.get_running_loop())
    listener.start()
    with socket.create_connection(server.getsockname()):
        await clients.until(1)
    listener.stop()
    assert "accepting rests" in caplog.text
    assert listening.accepts == 2


async def test_who_stops_while_it_rests_does_not_begin_again(server, clients, monkeypatch):
    monkeypatch.setattr(module, "_ACCEPT_PAUSE_SECONDS", 0.0)
    listening = Listening(server, refusals=1)
    listener = Listener(listening, clients.admit, asyncio.get_running_loop())
    listener.start()
    with socket.create_connection(server.getsockname()):
        while not listening.accepts:
            await asyncio.sleep(0)
        listener.stop()
        for _ in range(5):
            await asyncio.sleep(0)
    assert listening.accepts == 1
    assert clients.addresses == []
