"""Carries the admin application on a listening socket, in the loop of whoever starts it. Installs no signal handler.

The socket is bound before, by the caller, so that a port in use is an error before anything else has started.
"""

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Generator
from email.utils import formatdate

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

# Admin answers are short; who is slower than this has gone away.
GRACE_SECONDS = 2
KEEP_ALIVE_SECONDS = 75
HEAD_SECONDS = 10
"""From the first byte of a request's head, or the connection's beginning, to the head's end."""

MAX_HEAD_BYTES = 16 << 10
MAX_CONNECTIONS = 256
"""Beyond it the answer is 503. Open connections cost control memory and file descriptors."""


class AdminServer:
    """One server for one listening socket; starts and stops once."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        """Prepare to serve `app` on `listener`, which this closes when it stops."""
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                app,
                # Libraries' logs go through ours.
                log_config=None,
                access_log=False,
                lifespan="off",
                http=_Protocol,
                ws="none",
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                limit_concurrency=MAX_CONNECTIONS,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve; requests are answered when this returns.

        Raises:
            OSError: The socket cannot be listened on.
        """
        # asyncio leaves it out for sockets that do not name their protocol; connections have it from the listener. Without it the
        # body of each answer waits 40 ms for the client's delayed acknowledgement of its head.
        if self._listener.family in (socket.AF_INET, socket.AF_INET6):
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._listener]))
        started = asyncio.ensure_future(self._server.is_serving.wait())
        await asyncio.wait({self._serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if not self._server.is_serving.is_set():
            started.cancel()
            await self._serving

    async def stop(self) -> None:
        """Close the listener, let answers under way finish for `GRACE_SECONDS`, and close what is left. May be called again."""
        if self._serving is None:
            return
        self._server.exit_soon()
        await self._serving


class _Server(uvicorn.Server):
    """uvicorn's server as a part of a process, not as the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_serving = asyncio.Event()
        self._is_ending = asyncio.Event()

    def exit_soon(self) -> None:
        """Let `serve` end."""
        self.should_exit = True
        self._is_ending.set()

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own looks ten times a second whether it has come, and keeps the date (see `_Protocol`)."""
        await self._is_ending.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_serving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the daemon."""
        yield


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a deadline for the head, without which a client that says nothing holds its connection for ever.

    The date of an answer is that of its request, so that nobody has to wake for it while nobody asks.
    """

    _head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own is
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        self.server_state.default_headers = _default_headers(int(time.time()))
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head_deadline is None and self.timeout_keep_alive_task is None:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None


@functools.lru_cache(maxsize=1)
def _default_headers(at: int) -> list[tuple[bytes, bytes]]:
    return [(b"date", formatdate(at, usegmt=True).encode())]
