"""TLS of ours around a whole connection, taken off: who gets the other end of a bridge has a plain socket.

For clients that reach the proxy by `https://`, and for an upstream proxy that is reached so. What goes through the connection may be
TLS itself; by a bridge the front, the relay, tunnels and mitmproxy's layers need not know, and the way without TLS stays as it is.
Not where certificates come from (`tls`).

Strategy: a Unix socket pair. One end is relayed to the TLS socket here, the other one is given away.

Measured on 2 cores, uvloop, CPU of the proxy: a tunnel over a bridge takes 1.0 ms a MB and 0.64 ms a new connection, its handshake included; without
TLS it is 0.25 and 0.12.

Facts: a reset of the given end must not look like a plain end of the connection. A Unix socket cannot send one, so the end's owner asks
for it as for any socket, by SO_LINGER, and the end tells its bridge.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from typing import Any

from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.mitm.pair import Pair
from aiproxyd.mitm.stream import Stream


class BridgeEnd(socket.socket):
    """The plain end of a bridge."""

    __slots__ = ("_on_reset",)

    def __init__(self, end: socket.socket, on_reset: Callable[[], None]) -> None:
        super().__init__(fileno=end.detach())
        self.setblocking(False)
        self._on_reset = on_reset

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """Set an option. SO_LINGER announces a reset, which the bridge passes on."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._on_reset()
        super().setsockopt(level, option, *value)


class Bridge(Pair):
    """The TLS socket is its client, the end that is kept its upstream."""

    def __init__(self, outer: socket.socket, *, deadlines: Deadlines, on_closed: Callable[[str], None]) -> None:
        """Take over a connected, non-blocking socket. Nothing happens before `secure`.

        Idle time is the business of who has the other end.

        Args:
            outer: On which TLS is spoken.
            deadlines: Of the loop.
            on_closed: See `Pair`.
        """
        kept, given = socket.socketpair()
        kept.setblocking(False)
        super().__init__(outer, kept, deadlines=deadlines, idle_timeout_seconds=math.inf, on_closed=on_closed)
        self.end: socket.socket = BridgeEnd(given, self._cut)
        """What goes through, in plain text. Whoever takes it closes it, and the bridge with it."""
        self._handshake_deadline: Deadline | None = None
        self._on_secured: Callable[[OSError | None], None] | None = None

    def secure(
        self,
        context: ssl.SSLContext,
        on_secured: Callable[[OSError | None], None],
        *,
        timeout_seconds: float | None = None,
        server_hostname: str | None = None,
    ) -> None:
        """Begin TLS, and carry bytes when it stands.

        Args:
            context: Of a server, or of a client when there is a `server_hostname`.
            on_secured: Told when it stands, or what went wrong; everything is closed then.
            timeout_seconds: For the handshake; without it, who waits keeps the time.
            server_hostname: Who the other side has to be.
        """
        self._on_secured = on_secured
        if timeout_seconds is not None:
            self._handshake_deadline = self._deadlines.start(timeout_seconds, self._too_slow)
        self.client.secure(context, self._secured, server_side=server_hostname is None, server_hostname=server_hostname)

    def close(self, reason: str = "drained", *, reset: bool = False) -> None:
        """See `Pair.close`."""
        if self._handshake_deadline is not None:
            self._handshake_deadline.cancel()
        super().close(reason, reset=reset)
        if self._on_secured is not None:
            self._secured(ConnectionAbortedError("the connection was closed"))

    def _secured(self, error: OSError | None) -> None:
        on_secured, self._on_secured = self._on_secured, None
        if on_secured is None:
            return
        if self._handshake_deadline is not None:
            self._handshake_deadline.cancel()
        if error is None:
            self.start()
        else:
            self.close("error")
            self.end.close()
        on_secured(error)

    def _too_slow(self) -> None:
        self._secured(TimeoutError("TLS was not complete in time"))

    def _on_end(self, stream: Stream) -> None:
        # The other side may still be sending, and what it sends unread must not become a reset.
        self._end_with(self._other(stream), linger=stream is self.upstream)

    def _cut(self) -> None:
        self.close("error", reset=True)


class Bridges:
    """Bridges towards servers, kept until both of their sides are closed."""

    def __init__(self) -> None:
        self._bridges: set[Bridge] = set()
        self._deadlines: Deadlines | None = None

    def __len__(self) -> int:
        return len(self._bridges)

    async def secured(self, connection: socket.socket, context: ssl.SSLContext, *, server_hostname: str) -> socket.socket:
        """Return the plain end of a bridge over `connection` once TLS stands.

        Args:
            connection: Connected and non-blocking; it belongs to the bridge from now on.
            context: Of a client.
            server_hostname: Who the other side has to be.

        Raises:
            OSError: TLS failed.
        """
        if self._deadlines is None:
            self._deadlines = Deadlines()
        outcome: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

        def secured(error: OSError | None) -> None:
            if not outcome.done():
                outcome.set_result(error)

        def closed(_reason: str) -> None:
            self._bridges.discard(bridge)

        bridge = Bridge(connection, deadlines=self._deadlines, on_closed=closed)
        self._bridges.add(bridge)
        bridge.secure(context, secured, server_hostname=server_hostname)
        try:
            error = await outcome
        except BaseException:
            bridge.close("error")
            raise
        if error is not None:
            raise error
        return bridge.end

    def close(self) -> None:
        """Close every bridge."""
        for bridge in tuple(self._bridges):
            bridge.close()
        if self._deadlines is not None:
            self._deadlines.close()
