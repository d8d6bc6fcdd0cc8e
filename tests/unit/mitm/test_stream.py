"""One end of a relay: what its owner is told, in plain and in TLS, when buffers are small and peers are rude."""

import asyncio
import socket
import ssl
import struct

import pytest
import trustme

from aiproxyd.mitm.stream import Stream
from tests.unit.mitm.stage import connected, until

LOOPS = "both"

HOST = "api.example.com"


class Owner:
    """Keeps what it is told; reads everything."""

    def __init__(self):
        self.received = bytearray()
        self.told = []
        self.fault = None

    def readable(self, stream):
        if self.fault is not None:
            raise self.fault
        try:
            data = stream.read()
        except OSError as exc:
            stream.pause()
            self.told.append(f"broken: {type(exc).__name__}")
            return
        if data is None:
            return
        if data:
            self.received += data
        else:
            stream.pause()
            self.told.append("end")

    def drained(self, stream):
        self.told.append("drained")

    def unwritable(self, stream, error):
        self.told.append("unwritable")

    def secure(self, stream, context, **how):
        def secured(error):
            self.told.append("secured" if error is None else f"insecure: {type(error).__name__}")
            if error is None:
                stream.resume()

        stream.secure(context, secured, **how)

    def broke(self, stream):
        self.told.append("broke")
        stream.close()


@pytest.fixture
async def plain():
    far, near = connected()
    owner = Owner()
    stream = Stream(near, owner, asyncio.get_running_loop())
    yield stream, owner, far
    stream.close()
    far.close()


@pytest.fixture(scope="module")
def contexts():
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert(HOST).configure_cert(server)
    ca.configure_trust(client)
    return server, client


@pytest.fixture
async def secured(contexts):
    server, client = contexts
    left, right = connected()
    for end in (left, right):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    owners = Owner(), Owner()
    streams = tuple(Stream(end, owner, asyncio.get_running_loop()) for end, owner in zip((left, right), owners, strict=True))
    owners[0].secure(streams[0], client, server_hostname=HOST)
    owners[1].secure(streams[1], server, server_side=True)
    await until(lambda: all("secured" in owner.told for owner in owners))
    for owner in owners:
        owner.told.clear()
    yield streams, owners
    for stream in streams:
        stream.close()


async def test_what_a_peer_does_not_take_is_kept_in_order_and_the_owner_told_when_it_left(plain):
    stream, owner, far = plain
    first, second = bytes(range(256)) * 100_000, b"second" * 1000
    assert not stream.write(first)
    assert not stream.write(second)
    assert stream.has_unsent
    received = bytearray()
    while len(received) < len(first) + len(second):
        received += await asyncio.get_running_loop().sock_recv(far, 1 << 20)
    assert received == first + second
    await until(lambda: owner.told == ["drained"])
    assert not stream.has_unsent
    assert stream.write(b"x")


async def test_a_paused_stream_leaves_bytes_in_the_kernel(plain):
    stream, owner, far = plain
    assert stream.is_paused
    far.send(b"hello")
    await asyncio.sleep(0.02)
    assert not owner.received
    stream.resume()
    await until(lambda: owner.received == b"hello")
    stream.pause()
    far.send(b"more")
    await asyncio.sleep(0.02)
    assert owner.received == b"hello"


async def test_bytes_then_an_end(plain):
    stream, owner, far = plain
    stream.resume()
    await asyncio.get_running_loop().sock_sendall(far, bytes(200_000))
    far.shutdown(socket.SHUT_WR)
    await until(lambda: owner.told == ["end"])
    assert len(owner.received) == 200_000
    assert not stream.is_ragged


@pytest.mark.parametrize("size", [10, 60_000])
async def test_bytes_then_a_reset(plain, size):
    stream, owner, far = plain
    await asyncio.get_running_loop().sock_sendall(far, bytes(size))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    stream.resume()
    await until(lambda: owner.told)
    assert owner.told == ["broken: ConnectionResetError"]
    assert len(owner.received) == size


async def test_a_peer_that_left_cannot_be_written_to(plain):
    stream, owner, far = plain
    assert not stream.write(bytes(24 << 20))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    await until(lambda: owner.told == ["unwritable"])
    assert not stream.has_unsent


async def test_a_fault_of_the_owner_is_told_to_the_owner(plain, caplog):
    stream, owner, far = plain
    owner.fault = ZeroDivisionError()
    stream.resume()
    far.send(b"x")
    await until(lambda: owner.told == ["broke"])
    assert stream.is_closed
    assert "its relay failed" in caplog.text


async def test_a_finished_stream_may_still_read(plain):
    stream, owner, far = plain
    stream.resume()
    stream.finish()
    assert await asyncio.get_running_loop().sock_recv(far, 10) == b""
    far.send(b"late")
    await until(lambda: owner.received == b"late")
    far.close()
    stream.finish()


async def test_a_stream_that_was_closed_says_nothing_and_may_be_closed_again(plain):
    stream, owner, far = plain
    stream.resume()
    stream.close(reset=True)
    stream.close()
    stream.resume()
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(far, 10)
    assert not owner.told


async def test_a_socket_can_be_had_back(plain):
    stream, owner, far = plain
    stream.resume()
    near = stream.release()
    stream.close()
    far.send(b"x")
    assert await asyncio.get_running_loop().sock_recv(near, 10) == b"x"
    assert not owner.received
    near.close()


async def test_what_arrives_can_be_discarded_until_the_end(plain):
    stream, _, far = plain
    assert not stream.discard()
    far.send(b"x")
    await asyncio.sleep(0.01)
    assert not stream.discard()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    await asyncio.sleep(0.01)
    assert stream.discard()


async def test_tls_carries_every_byte_through_small_buffers_both_ways_at_once(secured):
    (left, right), (at_left, at_right) = secured
    up, down = bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 15_000
    left.write(up)
    left.write(b"tail")
    right.write(down)
    await until(lambda: len(at_right.received) == len(up) + 4 and len(at_left.received) == len(down))
    assert at_right.received == up + b"tail"
    assert at_left.received == down
    assert at_left.told == at_right.told == ["drained"]


async def test_nothing_is_written_at_once_in_plain_and_in_tls(plain, secured):
    (left, _), (_, at_right) = secured
    for stream in (plain[0], left):
        assert stream.write(b"")
        assert not stream.has_unsent
    assert left.write(b"x")
    await until(lambda: at_right.received == b"x")
    assert at_right.told == []


async def test_tls_that_ends_by_its_rules_is_not_ragged(secured):
    (left, right), (_, at_right) = secured
    left.finish()
    await until(lambda: at_right.told == ["end"])
    assert not right.is_ragged


@pytest.mark.parametrize("size", [4, 16384, 20_000, 60_000])
async def test_tls_that_is_cut_is_ragged(secured, size):
    (left, right), (_, at_right) = secured
    # All of it waits when it is read, so that one read meets the end behind the bytes and TLS answers it to nobody.
    right.pause()
    left.write(bytes(size))
    left.close()
    right.resume()
    await until(lambda: at_right.told)
    assert at_right.told == ["end"]
    assert right.is_ragged
    assert len(at_right.received) == size


async def test_tls_that_is_reset_is_broken(secured):
    (left, _), (_, at_right) = secured
    left.close(reset=True)
    await until(lambda: at_right.told)
    assert at_right.told == ["broken: ConnectionResetError"]


async def test_garbage_in_tls_is_a_broken_connection(secured):
    (left, _), (_, at_right) = secured
    socket.socket.send(left.socket, b"\x17\x03\x03\x00\x20" + bytes(32))
    await until(lambda: at_right.told)
    assert at_right.told == ["broken: SSLError"]


@pytest.mark.parametrize("hostname", ["", ".example.com", "a" * 300])
async def test_a_name_that_tls_cannot_say_is_no_secure_stream(plain, contexts, hostname):
    stream, owner, _ = plain
    owner.secure(stream, contexts[1], server_hostname=hostname)
    assert not owner.told
    await until(lambda: owner.told)
    assert owner.told[0].startswith("insecure: ")


async def test_a_stream_that_is_closed_in_its_handshake_says_nothing(plain, contexts):
    stream, owner, far = plain
    owner.secure(stream, contexts[1], server_hostname=HOST)
    stream.close()
    await asyncio.sleep(0.01)
    assert not owner.told
    far.close()


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_a_stream_that_was_closed_never_meets_the_next_connection_with_its_descriptor(plain, secured, kind):
    stream = plain[0] if kind == "plain" else secured[0][0]
    stream.close()
    made = [connected() for _ in range(8)]
    ends = [end for pair in made for end in pair]
    other = next(end for end in ends if end.fileno() == stream.fileno)
    peer = next(pair[1 - pair.index(other)] for pair in made if other in pair)
    peer.send(b"for somebody else")
    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.read()
    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.write(b"for nobody")
    assert await asyncio.get_running_loop().sock_recv(other, 100) == b"for somebody else"
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    for end in ends:
        end.close()


async def test_a_peer_that_leaves_in_the_handshake_is_an_error(plain, contexts):
    stream, owner, far = plain
    owner.secure(stream, contexts[0], server_side=True)
    far.close()
    await until(lambda: owner.told)
    assert owner.told[0].startswith("insecure: ")
