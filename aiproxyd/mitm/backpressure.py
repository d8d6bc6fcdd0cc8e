"""When to stop reading from one side of a decrypted connection, because mitmproxy's layers would hoard what is read.

Facts about mitmproxy 12.2.3: while a layer waits for a connection or a hook, it queues every event, bodies included, without a limit;
an HTTP/2 connection buffers whatever its peer's window does not admit; a ClientHello may be declared, and is buffered, up to 16 MiB.
What an HTTP/1.1 peer does not read is no matter of this file: mitmproxy waits for writers before it reads on.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from mitmproxy import connection as mitm
from mitmproxy.proxy.layers import HttpLayer
from mitmproxy.proxy.layers.http import HttpClient
from mitmproxy.proxy.layers.http._http2 import Http2Connection
from mitmproxy.proxy.tunnel import TunnelLayer

from aiproxyd.exceptions import AiproxydError

# A ClientHello with every extension and post-quantum keys has some 2 KiB.
MAX_CLIENT_HANDSHAKE_BYTES = 65536

# What one HTTP/2 connection may hold for a peer that does not open its window; more is left in the other side's socket.
MAX_HELD_HTTP2_BYTES = 4 << 20


class Gates:
    """One gate a connection; nothing is read from a connection whose gate is closed."""

    def __init__(self, client: mitm.Client) -> None:
        self._client = client
        self._gates: dict[mitm.Connection, asyncio.Event] = {}
        self._waited_for: set[object] = set()

    def reader(self, connection: mitm.Connection, reader: asyncio.StreamReader) -> "GatedReader":
        """Return a reader of `connection` that minds its gate, which is open."""
        gate = self._gates[connection] = asyncio.Event()
        gate.set()
        return GatedReader(reader, gate, self._client if connection is self._client else None)

    def forget(self, connection: mitm.Connection) -> None:
        """Drop the gate of a connection that ended."""
        self._gates.pop(connection, None)
        self._waited_for.discard(connection)

    def wait_for(self, reason: object) -> None:
        """Read nothing from the client until `done_with(reason)`, from the next `settle` on."""
        self._waited_for.add(reason)

    def done_with(self, reason: object) -> None:
        """End what `wait_for` began; in vain when it did not."""
        self._waited_for.discard(reason)

    def settle(self, http: HttpLayer) -> None:
        """Open and close the gates by what is held and waited for.

        Raises:
            AiproxydError: Neither side opens its window; each would wait behind what is not read from it.
        """
        full = {connection for connection, held in held_bytes(http) if held > MAX_HELD_HTTP2_BYTES}
        client_is_full = self._client in full
        server_is_full = len(full) > client_is_full
        if client_is_full and server_is_full:
            raise AiproxydError("neither side of an HTTP/2 connection opens its window")
        for connection, gate in self._gates.items():
            if (server_is_full or self._waited_for) if connection is self._client else client_is_full:
                gate.clear()
            else:
                gate.set()


class GatedReader:
    """Reads from a stream while its gate is open, and from a client only so much before TLS is established."""

    def __init__(self, reader: asyncio.StreamReader, gate: asyncio.Event, client: mitm.Client | None) -> None:
        self._reader = reader
        self._gate = gate
        self._client = client
        self._handshake_bytes = 0

    async def read(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`; none at the end.

        Raises:
            OSError: The connection failed, or a client's handshake is larger than any.
        """
        if not self._gate.is_set():
            await self._gate.wait()
        if self._client is not None:
            # Looked at before reading: the read that completes the handshake may hold the first request as well.
            if self._client.tls_established:
                self._client = None
            elif self._handshake_bytes > MAX_CLIENT_HANDSHAKE_BYTES:
                raise ConnectionAbortedError("the client's handshake is larger than any")
        data = await self._reader.read(limit)
        self._handshake_bytes += len(data)
        return data


def held_bytes(http: HttpLayer) -> Iterator[tuple[mitm.Connection, int]]:
    """Return how many bytes each HTTP/2 connection holds for its peer."""
    if http.context.client.alpn != b"h2":
        return
    for connection, layer in http.connections.items():
        http2 = _innermost(layer)
        if isinstance(http2, Http2Connection):
            yield connection, sum(len(piece.data) for held in http2.h2_conn.stream_buffers.values() for piece in held)


def _innermost(layer: Any) -> Any:
    while isinstance(layer, TunnelLayer | HttpClient):
        inner = getattr(layer, "child_layer", None)
        if inner is None:
            break
        layer = inner
    return layer
