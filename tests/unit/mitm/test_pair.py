"""A pair whose one side is TLS of ours: the tunnel for what the kernel cannot move. Plain pairs are tested in `test_tunnel`."""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import trustme

from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.pair import Pair
from tests.unit.mitm.stage import connected, until

LOOPS = "both"


@pytest.fixture
async def ends():
    """A pair, a blocking TLS client, and a plain upstream."""
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("a.example.com").configure_cert(server)
    ca.configure_trust(client)
    far, near = connected()
    far.setblocking(True)
    near.setblocking(True)
    accepted = []
    thread = threading.Thread(target=lambda: accepted.append(server.wrap_socket(near, server_side=True)))
    thread.start()
    tls = client.wrap_socket(far, server_hostname="a.example.com")
    thread.join()
    accepted[0].setblocking(False)
    upstream, near_upstream = connected()
    deadlines = Deadlines(tick_seconds=0.02)
    reasons = []
    pair = Pair(accepted[0], near_upstream, deadlines=deadlines, idle_timeout_seconds=60, on_closed=reasons.append)
    pair.start()
    yield pair, tls, upstream, reasons
    pair.close()
    tls.close()
    upstream.close()
    deadlines.close()


def in_thread(call, *arguments):
    return asyncio.get_running_loop().run_in_executor(None, call, *arguments)


def receive(end, count):
    received = bytearray()
    while len(received) < count and (data := end.recv(count - len(received))):
        received += data
    return bytes(received)


async def test_bytes_pass_both_ways(ends):
    pair, tls, upstream, reasons = ends
    loop = asyncio.get_running_loop()
    body = bytes(range(256)) * 10_000
    sending = in_thread(tls.sendall, body)
    received = bytearray()
    while len(received) < len(body):
        received += await loop.sock_recv(upstream, 1 << 20)
    await sending
    assert received == body
    receiving = in_thread(receive, tls, len(body))
    await loop.sock_sendall(upstream, body)
    assert await receiving == body
    assert (pair.bytes_to_upstream, pair.bytes_to_client) == (len(body), len(body))
    assert not reasons


async def test_the_end_of_either_side_ends_both_after_what_came_before(ends):
    _, tls, upstream, reasons = ends
    body = bytes(3_000_000)
    speaking = asyncio.get_running_loop().create_task(asyncio.get_running_loop().sock_sendall(upstream, body))
    receiving = in_thread(receive, tls, len(body) + 1)
    await speaking
    upstream.shutdown(socket.SHUT_WR)
    assert await receiving == body
    await until(lambda: reasons == ["eof"])


async def test_a_client_that_ends_by_the_rules_of_tls_ends_both(ends):
    _, tls, upstream, reasons = ends
    await in_thread(tls.sendall, b"bye")
    with contextlib.suppress(OSError):
        await in_thread(tls.unwrap)
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(upstream, 100):
        received += data
    assert received == b"bye"
    await until(lambda: reasons == ["eof"])


async def test_a_fault_closes_both(ends, caplog):
    pair, tls, _, reasons = ends
    pair._from_client = lambda data: 1 / 0
    await in_thread(tls.sendall, b"x")
    await until(lambda: reasons == ["error"])
    assert pair.client.is_closed
    assert pair.upstream.is_closed
    assert "its relay failed" in caplog.text
