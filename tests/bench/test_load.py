"""What the load does before it measures, against a real server of a few lines."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.bench import load as work


class Origin:
    """Answers requests. One connection it may cut before TLS, and one begin TLS later than the others."""

    def __init__(self, *, cuts: int = 0, delays: int = 0) -> None:
        self.port = 0
        self.open = 0
        self.asked = 0
        self.left = asyncio.Event()
        """Set when an open connection has ended."""
        self._cuts = cuts
        self._delays = delays
        authority = trustme.CA()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Origin"]:
        """Listen."""
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            self.port = listening.getsockname()[1]
            tasks: list[asyncio.Task[None]] = []

            async def accept() -> None:
                while True:
                    accepted, _ = await loop.sock_accept(listening)
                    tasks.append(loop.create_task(self._serve(accepted, len(tasks))))

            tasks.append(loop.create_task(accept()))
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, accepted: socket.socket, number: int) -> None:
        """Answer on connection `number`, counted from 1. TLS begins here, so that what the client sent before waits in the kernel."""
        loop = asyncio.get_running_loop()
        with accepted:
            if number == self._cuts:
                while not self.open:
                    await asyncio.sleep(0.01)
                return
            if number == self._delays:
                await asyncio.sleep(0.2)
            reader = asyncio.StreamReader()
            # A client's side of TLS is done before the server hears of it.
            self.open += 1
            transport, _ = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), accepted, ssl=self._context
            )
            try:
                while not reader.at_eof():
                    await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(len(work.QUESTION))
                    self.asked += 1
                    transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            except (OSError, asyncio.IncompleteReadError):
                self.left.set()
            finally:
                transport.abort()


async def test_all_connections_are_open_before_the_first_request() -> None:
    async with Origin(delays=3).running() as origin:
        seen: list[tuple[int, int]] = []
        took = await work.kept_alive(
            work.Load(None),
            origin.port,
            requests=20,
            connections=3,
            opened=lambda: seen.append((origin.open, origin.asked)),
        )
        assert seen == [(3, 0)]
        assert (len(took), origin.asked) == (20, 20)


async def test_a_connection_that_fails_ends_those_that_wait_for_it() -> None:
    async with Origin(cuts=2).running() as origin:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await work.kept_alive(work.Load(None), origin.port, requests=20, connections=2)
        async with asyncio.timeout(10):
            await origin.left.wait()
        assert origin.asked == 0
