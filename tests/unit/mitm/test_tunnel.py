"""Tunnels between sockets: every byte, both ends, and what they hold on to."""

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest

from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.pair import Pair
from aiproxyd.mitm.tunnel import PipePool, Tunnel
from tests.unit.mitm.stage import connected, until

LOOPS = "both"


class Ends:
    """A tunnel between two TCP connections, the far ends of which are ours."""

    def __init__(self, kind, pool, idle_timeout_seconds=60.0):
        self.deadlines = Deadlines(tick_seconds=0.02)
        self.reasons = []
        self.client, near_client = connected()
        self.upstream, near_upstream = connected()
        options = {"deadlines": self.deadlines, "idle_timeout_seconds": idle_timeout_seconds, "on_closed": self.reasons.append}
        if kind == "pair":
            self.tunnel = Pair(near_client, near_upstream, **options)
            self.tunnel.start()
        else:
            self.tunnel = Tunnel(near_client, near_upstream, pipes=pool, **options)

    async def close(self):
        self.tunnel.close()
        self.client.close()
        self.upstream.close()
        self.deadlines.close()


class Clock:
    """The loop, but for its time, and its timer that would go on by itself."""

    def __init__(self):
        self.seconds = asyncio.get_running_loop().time()

    def time(self):
        return self.seconds

    def call_soon(self, *call):
        return asyncio.get_running_loop().call_soon(*call)

    def call_later(self, *_call):
        return None


class NoPipes(PipePool):
    """A pool of a process that has no descriptors left."""

    def take(self):
        return None


@pytest.fixture(params=["splice", "copy", "pair"])
async def ends(request):
    pool = NoPipes() if request.param == "copy" else PipePool()
    ends = Ends(request.param, pool)
    yield ends
    await ends.close()
    pool.close()


async def send_all(end, data):
    await asyncio.get_running_loop().sock_sendall(end, data)


async def receive_all(end):
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(end, 1 << 20):
        received += data
    return bytes(received)


async def test_every_byte_passes_both_ways_at_once_and_half_close_is_kept(ends):
    up, down = os.urandom(3_000_000), os.urandom(2_000_000)

    async def speak(end, data):
        await send_all(end, data)
        end.shutdown(socket.SHUT_WR)

    async with asyncio.TaskGroup() as group:
        group.create_task(speak(ends.client, up))
        group.create_task(speak(ends.upstream, down))
        at_upstream = group.create_task(receive_all(ends.upstream))
        at_client = group.create_task(receive_all(ends.client))
    assert at_upstream.result() == up
    assert at_client.result() == down
    await until(lambda: ends.reasons == ["eof"])
    assert (ends.tunnel.bytes_to_upstream, ends.tunnel.bytes_to_client) == (len(up), len(down))


async def test_a_side_that_ended_may_still_be_answered(ends):
    await send_all(ends.client, b"question")
    ends.client.shutdown(socket.SHUT_WR)
    assert await receive_all(ends.upstream) == b"question"
    for _ in range(3):
        await send_all(ends.upstream, b"answer")
    ends.upstream.close()
    assert await receive_all(ends.client) == b"answer" * 3
    await until(lambda: ends.reasons == ["eof"])


async def test_a_side_that_does_not_read_holds_the_other_back_and_then_gets_everything(ends):
    total = 24 << 20
    sent = 0

    async def speak():
        nonlocal sent
        while sent < total:
            await send_all(ends.upstream, bytes(1 << 18))
            sent += 1 << 18
        ends.upstream.shutdown(socket.SHUT_WR)

    speaking = asyncio.get_running_loop().create_task(speak())

    async def stalled():
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)

    await stalled()
    assert sent < total
    assert len(await receive_all(ends.client)) == total
    await speaking


async def test_a_reset_is_passed_on_and_what_came_before_it_too(ends):
    await send_all(ends.upstream, b"last words")
    ends.upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.upstream.close()
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(ends.client, 1000):
            received += data
        pytest.fail("the client saw a plain end")
    assert received == b"last words"
    await until(lambda: ends.reasons == ["error"])


async def test_a_reset_while_the_other_side_does_not_read_ends_the_tunnel(ends):
    with contextlib.suppress(BlockingIOError):
        while True:
            ends.upstream.send(bytes(1 << 18))
            await asyncio.sleep(0)
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.client.close()
    await until(lambda: ends.reasons == ["error"])


async def test_a_tunnel_closes_once(ends):
    ends.tunnel.close("drained")
    ends.tunnel.close("error")
    assert ends.reasons == ["drained"]


async def test_idle_time_counts_from_the_last_byte():
    pool = PipePool()
    ends = Ends("splice", pool, idle_timeout_seconds=60.0)
    clock = Clock()
    ends.deadlines._loop = clock
    for _ in range(5):
        clock.seconds += 40
        ends.deadlines._tick()
        await send_all(ends.client, b"x")
        assert await asyncio.get_running_loop().sock_recv(ends.upstream, 10) == b"x"
    assert not ends.reasons
    clock.seconds += 59
    ends.deadlines._tick()
    assert not ends.reasons
    clock.seconds += 3  # a deadline passes up to two ticks late
    ends.deadlines._tick()
    await until(lambda: ends.reasons == ["idle"])
    await ends.close()
    pool.close()


def algorithm(end):
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


async def receive(end, size):
    received = bytearray()
    while len(received) < size:
        received += await asyncio.get_running_loop().sock_recv(end, size - len(received))
    return bytes(received)


@pytest.mark.parametrize(("before", "after"), [(b"bbr", b"reno"), (b"cubic", b"cubic")])
async def test_bulk_towards_this_machine_is_not_paced_and_nothing_else_is_changed(before, after):
    pool = PipePool()
    bulk = Ends("splice", pool)
    for end in (bulk.tunnel.client, bulk.tunnel.upstream):
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, before)
        except OSError:
            pytest.skip(f"this system does not offer {before.decode()}")
    await send_all(bulk.upstream, b"x")
    assert await receive(bulk.client, 1) == b"x"
    assert algorithm(bulk.tunnel.client) == before
    lot = os.urandom(1 << 20)
    sending = asyncio.ensure_future(send_all(bulk.upstream, lot))
    assert await receive(bulk.client, len(lot)) == lot
    await sending
    assert algorithm(bulk.tunnel.client) == after
    assert algorithm(bulk.tunnel.upstream) == before
    await bulk.close()
    pool.close()


async def test_bulk_through_a_unix_socket_passes():
    pool = PipePool()
    far, near = socket.socketpair()
    upstream, near_upstream = connected()
    for end in (far, near):
        end.setblocking(False)
    reasons = []
    deadlines = Deadlines(tick_seconds=0.02)
    tunnel = Tunnel(near, near_upstream, pipes=pool, deadlines=deadlines, idle_timeout_seconds=60.0, on_closed=reasons.append)
    lot = os.urandom(1 << 20)
    sending = asyncio.ensure_future(send_all(upstream, lot))
    assert await receive(far, len(lot)) == lot
    await sending
    upstream.close()
    assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
    far.close()
    await until(lambda: reasons == ["eof"])
    tunnel.close()
    deadlines.close()
    pool.close()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_idle_tunnel_holds_no_pipe():
    pool = PipePool()
    before = descriptors()
    tunnels = [Ends("splice", pool) for _ in range(20)]
    for ends in tunnels:
        await send_all(ends.client, b"x")
        assert await asyncio.get_running_loop().sock_recv(ends.upstream, 10) == b"x"
    # Four sockets a tunnel and a shared pipe or two; the pipe goes back within the turn in which it was taken.
    assert descriptors() <= before + 4 * len(tunnels) + 4
    for ends in tunnels:
        await ends.close()
    pool.close()
    assert descriptors() == before


def test_a_pipe_that_is_not_empty_never_comes_back():
    pool = PipePool()
    pipe = pool.take()
    os.write(pipe.write_end, b"somebody else's bytes")
    pool.give(pipe, empty=False)
    other = pool.take()
    with pytest.raises(BlockingIOError):
        os.read(other.read_end, 10)
    pool.give(other)
    assert pool.take() is other
    pool.give(other)
    pool.close()


def test_a_pool_keeps_few_pipes_and_makes_few_large_ones():
    pool = PipePool()
    pipes = [pool.take() for _ in range(40)]
    assert sum(pipe.is_large for pipe in pipes) <= 32
    for pipe in pipes:
        pool.give(pipe)
    assert len(pool._idle) == 32
    pool.close()


def test_there_may_be_no_pipes_at_all(monkeypatch):
    def refuse(flags):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    assert PipePool().take() is None


def test_a_pipe_whose_size_the_system_refuses_is_a_small_one(monkeypatch):
    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr("fcntl.fcntl", refuse)
    pool = PipePool()
    pipe = pool.take()
    assert not pipe.is_large
    pool.give(pipe)
    pool.close()
