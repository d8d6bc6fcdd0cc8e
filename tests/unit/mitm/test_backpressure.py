"""The gates alone; how they hold back real peers is in `test_safe_handler` and `test_http2`."""

import asyncio
from types import SimpleNamespace

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import HttpLayer
from mitmproxy.proxy.layers.http import HttpClient, HTTPMode
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server

from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.backpressure import MAX_CLIENT_HANDSHAKE_BYTES, MAX_HELD_HTTP2_BYTES, Gates, held_bytes


class Both:
    """An HTTP/2 connection on either side, and the gates of both."""

    def __init__(self) -> None:
        options = Options()
        options.add_option("validate_inbound_headers", bool, True, "")
        context = Context(Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), alpn=b"h2"), options)
        context.server = Server(address=("x", 443), alpn=b"h2")
        self.client, self.server = context.client, context.server
        self.http = HttpLayer(context, HTTPMode.transparent)
        self._to_client = Http2Server(context.fork())
        self._to_server = Http2Client(context.fork())
        wrapped = HttpClient(context.fork())
        wrapped.child_layer = self._to_server
        self.http.connections = {self.client: self._to_client, self.server: wrapped}
        self.gates = Gates(self.client)
        self.readers = {side: self.gates.reader(side, asyncio.StreamReader()) for side in (self.client, self.server)}

    def hold(self, *, for_client: int = 0, for_server: int = 0) -> None:
        for layer, count in ((self._to_client, for_client), (self._to_server, for_server)):
            layer.h2_conn.stream_buffers.clear()
            if count:
                layer.h2_conn.stream_buffers[1].append(SimpleNamespace(data=bytes(count)))

    def open_gates(self) -> tuple[bool, bool]:
        """Return whether the client and the server may be read, after settling."""
        self.gates.settle(self.http)
        return self.readers[self.client]._gate.is_set(), self.readers[self.server]._gate.is_set()


@pytest.fixture
async def both():
    return Both()


async def test_everything_is_read_while_nothing_is_held(both):
    assert both.open_gates() == (True, True)


async def test_the_client_waits_while_something_is_waited_for(both):
    both.gates.wait_for("a connection")
    both.gates.wait_for("a hook")
    assert both.open_gates() == (False, True)
    both.gates.done_with("a connection")
    both.gates.done_with("nothing that was waited for")
    assert both.open_gates() == (False, True)
    both.gates.done_with("a hook")
    assert both.open_gates() == (True, True)


async def test_each_side_waits_for_the_window_of_the_other(both):
    both.hold(for_client=MAX_HELD_HTTP2_BYTES + 1)
    assert both.open_gates() == (True, False)
    both.hold(for_server=MAX_HELD_HTTP2_BYTES + 1)
    assert both.open_gates() == (False, True)
    both.hold(for_client=MAX_HELD_HTTP2_BYTES, for_server=MAX_HELD_HTTP2_BYTES)
    assert both.open_gates() == (True, True)


async def test_two_sides_that_wait_for_each_other_are_an_error(both):
    both.hold(for_client=MAX_HELD_HTTP2_BYTES + 1, for_server=MAX_HELD_HTTP2_BYTES + 1)
    with pytest.raises(AiproxydError):
        both.gates.settle(both.http)


async def test_http1_holds_nothing_here(both):
    both.client.alpn = b"http/1.1"
    both.hold(for_client=MAX_HELD_HTTP2_BYTES + 1)
    assert list(held_bytes(both.http)) == []


async def test_a_connection_that_ended_is_not_waited_for(both):
    both.gates.wait_for(both.server)
    both.gates.forget(both.server)
    assert both.open_gates()[0]


async def test_a_closed_gate_holds_a_read_back(both):
    stream = asyncio.StreamReader()
    stream.feed_data(b"x")
    reader = both.gates.reader(both.client, stream)
    both.gates.wait_for("a hook")
    both.gates.settle(both.http)
    reading = asyncio.ensure_future(reader.read(1))
    await asyncio.sleep(0)
    assert not reading.done()
    both.gates.done_with("a hook")
    both.gates.settle(both.http)
    assert await reading == b"x"


@pytest.mark.parametrize("established", [False, True])
async def test_a_client_has_so_many_bytes_for_its_handshake(both, established):
    stream = asyncio.StreamReader(limit=4 * MAX_CLIENT_HANDSHAKE_BYTES)
    stream.feed_data(bytes(MAX_CLIENT_HANDSHAKE_BYTES + 2))
    reader = both.gates.reader(both.client, stream)
    await reader.read(MAX_CLIENT_HANDSHAKE_BYTES + 1)
    if established:
        both.client.timestamp_tls_setup = 1.0
        assert await reader.read(1) == b"\0"
    else:
        with pytest.raises(OSError, match="handshake"):
            await reader.read(1)
