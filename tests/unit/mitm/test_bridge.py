"""TLS that is taken off: what goes through arrives, and what ends or breaks on one side ends or breaks on the other."""

import asyncio
import socket
import ssl

import pytest
import trustme

from aiproxyd.mitm.bridge import Bridge, Bridges
from aiproxyd.mitm.deadlines import Deadlines
from tests.unit.mitm.stage import connected, reset, until

LOOPS = "both"
HOST = "proxy.example.com"


@pytest.fixture(scope="module")
def contexts():
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert(HOST).configure_cert(server)
    ca.configure_trust(client)
    return server, client


class Side:
    """A bridge towards a client of ours."""

    def __init__(self, deadlines):
        self.far, near = connected()
        self.reasons = []
        self.told = []
        self.bridge = Bridge(near, deadlines=deadlines, on_closed=self.reasons.append)
        self.end = self.bridge.end


@pytest.fixture
async def side():
    deadlines = Deadlines(tick_seconds=0.02)
    side = Side(deadlines)
    yield side
    side.bridge.close()
    side.end.close()
    side.far.close()
    deadlines.close()


@pytest.fixture
async def client(side, contexts):
    """Reader and writer of a client that completed TLS."""
    server, context = contexts
    side.bridge.secure(server, side.told.append, timeout_seconds=20)
    reader, writer = await asyncio.open_connection(sock=side.far, ssl=context, server_hostname=HOST)
    await until(lambda: side.told == [None])
    yield reader, writer
    writer.transport.abort()


async def test_every_byte_passes_both_ways_at_once(side, client):
    reader, writer = client
    loop = asyncio.get_running_loop()
    up, down = bytes(range(256)) * 12_000, bytes(reversed(range(256))) * 9_000
    sending = loop.create_task(loop.sock_sendall(side.end, down))
    writer.write(up)
    received = bytearray()
    while len(received) < len(up):
        received += await loop.sock_recv(side.end, 1 << 18)
    assert received == up
    assert await reader.readexactly(len(down)) == down
    await sending


async def test_the_end_of_the_plain_side_is_a_proper_end_of_tls_after_what_came_before(side, client):
    reader, writer = client
    await asyncio.get_running_loop().sock_sendall(side.end, b"last words")
    side.end.close()
    assert await reader.read() == b"last words"  # raises where TLS was cut
    writer.close()
    await until(lambda: side.reasons == ["eof"])


async def test_the_end_of_tls_is_an_end_of_the_plain_side(side, client):
    _, writer = client
    writer.write(b"last words")
    writer.close()
    loop = asyncio.get_running_loop()
    received = b""
    while data := await loop.sock_recv(side.end, 100):
        received += data
    assert received == b"last words"


async def test_a_reset_of_the_plain_side_is_a_reset_of_the_connection(side, client):
    reader, _ = client
    side.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    side.end.close()
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        await reader.read()
    assert side.reasons == ["error"]


async def test_a_client_that_resets_ends_the_plain_side(side, client):
    _, writer = client
    reset(writer)
    assert await asyncio.get_running_loop().sock_recv(side.end, 100) == b""
    await until(lambda: side.reasons)


async def test_a_client_that_says_nothing_is_closed_in_time(side, contexts):
    side.bridge.secure(contexts[0], side.told.append, timeout_seconds=0.05)
    await until(lambda: side.told)
    assert isinstance(side.told[0], TimeoutError)
    assert side.reasons == ["error"]
    assert side.end.fileno() == -1


async def test_a_bridge_that_is_closed_in_its_handshake_says_so_once(side, contexts):
    side.bridge.secure(contexts[0], side.told.append, timeout_seconds=20)
    side.bridge.close()
    side.bridge.close()
    assert [type(error) for error in side.told] == [ConnectionAbortedError]


async def test_towards_a_server_the_name_is_checked(contexts):
    server, context = contexts
    bridges = Bridges()

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
    loop = asyncio.get_running_loop()

    async def open_bridge(host):
        connection = socket.socket()
        connection.setblocking(False)
        await loop.sock_connect(connection, listening.sockets[0].getsockname())
        return await bridges.secured(connection, context, server_hostname=host)

    end = await open_bridge(HOST)
    await loop.sock_sendall(end, b"hello")
    assert await loop.sock_recv(end, 100) == b"hello"
    assert len(bridges) == 1
    with pytest.raises(ssl.SSLCertVerificationError):
        await open_bridge("other.example.com")
    end.close()
    await until(lambda: not len(bridges))
    kept = await open_bridge(HOST)
    bridges.close()
    assert await loop.sock_recv(kept, 100) == b""
    kept.close()
    listening.close()
    await listening.wait_closed()
