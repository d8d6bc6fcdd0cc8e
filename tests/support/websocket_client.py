"""A WebSocket through a daemon, for tests without an event loop: websockets' asyncio client, whose loop runs while it is asked something.

Not websockets' threaded client: it reads and writes one TLS connection from two threads, which OpenSSL does not allow. With TLS 1.3 its
first message may meet the server's session tickets, and then it waits for ever, whatever the server.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from websockets.asyncio import client

from tests.support.daemon import Daemon


class WebSocket:
    """An open connection."""

    def __init__(self, runner: asyncio.Runner, connection: client.ClientConnection) -> None:
        self._runner = runner
        self._connection = connection

    def send(self, message: str | bytes) -> None:
        """Send a message."""
        self._runner.run(self._connection.send(message))

    def recv(self) -> str | bytes:
        """Return the next message.

        Raises:
            ConnectionClosed: None comes any more.
        """
        return self._runner.run(self._connection.recv())

    def ping(self) -> None:
        """Return when the other side has answered."""

        async def ping() -> None:
            await (await self._connection.ping())

        self._runner.run(ping())

    def close(self) -> None:
        """Close as the protocol has it."""
        self._runner.run(self._connection.close())


@contextlib.contextmanager
def connect(url: str, daemon: Daemon, **options: Any) -> Iterator[WebSocket]:
    """Open a WebSocket through `daemon`, whose CA alone is trusted; `options` are those of websockets."""

    async def connected() -> client.ClientConnection:
        trust = ssl.create_default_context(cafile=str(daemon.ca_file))
        return await client.connect(url, ssl=trust, proxy=daemon.proxy_url(), max_size=None, **options)

    with asyncio.Runner() as runner:
        websocket = WebSocket(runner, runner.run(connected()))
        try:
            yield websocket
        finally:
            websocket.close()
