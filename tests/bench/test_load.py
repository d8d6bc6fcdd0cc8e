"""What the load does before it measures, against a real server of a few lines."""

import asyncio
import itertools
import socket
import ssl
import threading
import time

import pytest
import trustme

from tests.bench import load as work
from tests.support.origins import Origin

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Answering:
    """Answers requests in TLS. One connection it may cut, once another is open, and with one it may begin later."""

    def __init__(self, *, cuts: int = 0, delays: int = 0) -> None:
        self.open: list[int] = []
        """Numbers of connections, counted from 1."""
        self.asked: list[int] = []
        """Of the connection of each request."""
        self.left = threading.Event()
        """Set when an open connection has ended."""
        self._cuts = cuts
        self._delays = delays
        self._numbers = itertools.count(1)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(self._context)

    def __call__(self, connection: socket.socket) -> None:
        number = next(self._numbers)
        if number == self._cuts:
            while not self.open:
                time.sleep(0.01)
            return
        if number == self._delays:
            time.sleep(0.2)
        # A client's side of TLS is done before the server hears of it.
        self.open.append(number)
        try:
            with self._context.wrap_socket(connection, server_side=True) as secured:
                # A request is a record.
                while secured.recv(65536):
                    self.asked.append(number)
                    secured.sendall(ANSWER)
        finally:
            self.left.set()


async def test_all_connections_are_open_before_the_first_request() -> None:
    answering = Answering(delays=3)
    seen: list[tuple[int, int]] = []
    with Origin(answering) as origin:
        took = await work.kept_alive(
            work.Load(None),
            origin.port,
            requests=20,
            connections=3,
            opened=lambda: seen.append((len(answering.open), len(answering.asked))),
        )
    assert seen == [(3, 0)]
    assert (len(took), len(answering.asked)) == (20, 20)


@pytest.mark.parametrize("job", ["requests", "streams"])
async def test_a_connection_that_fails_ends_those_that_wait_for_it(job: str) -> None:
    answering = Answering(cuts=2)
    with Origin(answering) as origin, pytest.RaisesGroup(pytest.RaisesExc((ConnectionError, ssl.SSLError))):
        if job == "requests":
            await work.kept_alive(work.Load(None), origin.port, requests=20, connections=2)
        else:
            await work.streams(work.Load(None), origin.port, count=2)
    assert await asyncio.to_thread(answering.left.wait, 10)
    assert answering.asked == []
