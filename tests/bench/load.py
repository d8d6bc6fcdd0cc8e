"""The load: connections through a proxy, or straight to the origin, on uvloop. Verifies no certificate: it measures others."""

import asyncio
import base64
import bisect
import contextlib
import itertools
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

QUESTION = json.dumps(
    {
        "model": "claude-bench",
        "max_tokens": 1024,
        "stream": False,
        "messages": [{"role": "user", "content": "A question of usual length, with a little context around it. " * 8}],
    }
).encode()
STREAM_QUESTION = QUESTION.replace(b'"stream": false', b'"stream": true')

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")

# Upstream events are 20 ms apart; a gap of twice that is a stall.
STALL_SECONDS = 0.04
STREAM_SECONDS = 2.0
SPREAD_SECONDS = 1.0
FIRST_BYTES_SECONDS = 20.0

_SENT = re.compile(rb"sent=(\d{19}) ")


class Conversation(asyncio.Protocol):
    """One connection and the answer that is waited for."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.times: list[float] = []
        """When each piece of the answer came."""
        self.sizes: list[int] = []
        """How much of it was there then, in bytes."""
        self._buffer = bytearray()
        self._waiter: asyncio.Future[bytes] | None = None
        self._head_only = False
        self._is_counting = False
        self.received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._is_counting:
            self.received_bytes += len(data)
            return
        self._buffer += data
        self.times.append(time.perf_counter())
        self.sizes.append(len(self._buffer))
        if self._waiter is not None and not self._waiter.done() and self._is_complete():
            answer = bytes(self._buffer)
            self._buffer.clear()
            self._waiter.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if self._is_counting:
                self._waiter.set_result(b"")
            else:
                self._waiter.set_exception(ConnectionError(f"closed after {bytes(self._buffer[:200])!r}"))

    def _is_complete(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        if self._head_only:
            return True
        if found := _LENGTH.search(self._buffer, 0, end + 2):
            return len(self._buffer) >= end + 4 + int(found[1])
        return self._buffer.endswith(b"0\r\n\r\n")

    async def ask(self, data: bytes, *, head_only: bool = False) -> bytes:
        """Send `data` and return the answer, or its head."""
        assert self.transport is not None
        self._head_only = head_only
        self.times.clear()
        self.sizes.clear()
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        answer = await self._waiter
        if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise ConnectionError(answer[:500])
        return answer

    async def drain(self, data: bytes) -> int:
        """Send `data` and return the number of bytes until the other side ends."""
        assert self.transport is not None
        self._is_counting = True
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        await self._waiter
        return self.received_bytes


class Load:
    """Makes connections to one origin through one proxy."""

    def __init__(self, proxy_port: int | None, *, token: str = "") -> None:
        """Prepare.

        Args:
            proxy_port: On loopback; None goes straight to the origin.
            token: For the proxy; empty sends none.
        """
        self._proxy_port = proxy_port
        proof = base64.b64encode(f"bench:{token}".encode()).decode()
        self._proof = f"Proxy-Authorization: Basic {proof}\r\n" if token else ""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.set_alpn_protocols(["http/1.1"])

    @contextlib.asynccontextmanager
    async def connection(self, port: int, *, tls: bool = True) -> AsyncIterator[Conversation]:
        """Yield a connection to `port` of localhost."""
        loop = asyncio.get_running_loop()
        _, conversation = await loop.create_connection(Conversation, "127.0.0.1", self._proxy_port or port)
        try:
            if self._proxy_port is not None:
                authority = f"localhost:{port}"
                head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{self._proof}\r\n"
                await conversation.ask(head.encode(), head_only=True)
            if tls:
                assert conversation.transport is not None
                conversation.transport = await loop.start_tls(
                    conversation.transport, conversation, self._context, server_hostname="localhost"
                )
            yield conversation
        finally:
            assert conversation.transport is not None
            conversation.transport.abort()


def request(body: bytes, port: int) -> bytes:
    """Return a request to /v1/messages of the origin."""
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: claude-cli/2.1.329 (external, sdk-cli)\r\n"
        "Accept: application/json\r\nx-api-key: sk-ant-api03-abcdefghijklmnop\r\nanthropic-version: 2023-06-01\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def kept_alive(
    load: Load, port: int, *, requests: int, connections: int, opened: Callable[[], None] | None = None
) -> list[float]:
    """Send `requests` over kept connections, which are open before the first; return how long each took, in seconds.

    Args:
        load: How to connect.
        port: Of the origin.
        requests: Of all connections together.
        connections: How many.
        opened: Called once, when all connections are open and nothing was asked on them.
    """
    question = request(QUESTION, port)
    numbers = iter(range(requests))
    durations: list[float] = []
    begin = _together(connections, opened)

    async def one() -> None:
        async with load.connection(port) as conversation:
            await begin()
            for _ in numbers:
                started = time.perf_counter()
                await conversation.ask(question)
                durations.append(time.perf_counter() - started)

    # One that fails ends the others, which would wait for it.
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one())
    return durations


def _together(count: int, opened: Callable[[], None] | None) -> Callable[[], Awaitable[None]]:
    """Return what each of `count` tasks is to wait for when its connection is open: that all are, and that `opened` was called."""
    barrier = asyncio.Barrier(count)

    async def begin() -> None:
        if opened is not None and barrier.n_waiting == count - 1:
            opened()
        await barrier.wait()

    return begin


async def new_connections(load: Load, port: int, *, requests: int, at_once: int) -> list[float]:
    """Make a connection for each of `requests`; return how long each took, in seconds."""
    question = request(QUESTION, port)
    numbers = iter(range(requests))
    durations: list[float] = []

    async def one() -> None:
        for _ in numbers:
            started = time.perf_counter()
            async with load.connection(port) as conversation:
                await conversation.ask(question)
            durations.append(time.perf_counter() - started)

    await asyncio.gather(*(one() for _ in range(at_once)))
    return durations


class Streams(NamedTuple):
    """What was seen of streams that were read at once."""

    first_bytes: list[float]
    """Seconds from each question to the first byte of its answer."""
    delays: list[float]
    """Seconds from the sending of each event to its arrival."""
    stalled: int
    """How many had a gap of more than `STALL_SECONDS`."""


async def streams(
    load: Load,
    port: int,
    *,
    count: int,
    opened: Callable[[], None] | None = None,
    during: Callable[[], None] | None = None,
    spread_seconds: float = SPREAD_SECONDS,
) -> Streams:
    """Read `count` paced streams at once, on connections that are open before the first begins.

    Args:
        load: How to connect.
        port: Of the origin.
        count: Number of streams.
        opened: Called once, when all connections are open and nothing was asked on them.
        during: Called once, when all of them flow.
        spread_seconds: The streams begin evenly spread over it, as independent clients do.
    """
    question = request(STREAM_QUESTION, port)
    loop = asyncio.get_running_loop()
    first: list[float] = []
    delays: list[float] = []
    stalled = 0

    def all_open() -> None:
        if opened is not None:
            opened()
        if during is not None:
            loop.call_later(spread_seconds + STREAM_SECONDS / 4, during)

    begin = _together(count, all_open)

    async def one(number: int) -> None:
        nonlocal stalled
        async with load.connection(port) as conversation:
            await begin()
            await asyncio.sleep(spread_seconds * number / count)
            started = time.perf_counter()
            answer = await conversation.ask(question)
            times = conversation.times
            first.append(times[0] - started)
            stalled += any(later - earlier > STALL_SECONDS for earlier, later in itertools.pairwise(times))
            for found in _SENT.finditer(answer):
                # An event has come when the piece that holds its end has.
                arrived = times[bisect.bisect_left(conversation.sizes, found.end())]
                delays.append(arrived - int(found[1]) / 1e9)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))
    return Streams(first, delays, stalled)


async def first_bytes(load: Load, port: int, *, count: int, is_new: bool = False) -> list[float]:
    """Begin `count` streams, one after the other on connections of their own; return the seconds to the first byte of each.

    Args:
        load: How to connect.
        port: Of the origin.
        count: Number of streams; fewer when they take longer than `FIRST_BYTES_SECONDS` together, as with who buffers them.
        is_new: Whether the stream is the first thing that is asked on its connection; else a small request went before it.
    """
    question = request(STREAM_QUESTION, port)
    durations: list[float] = []
    until = time.perf_counter() + FIRST_BYTES_SECONDS
    while len(durations) < count and time.perf_counter() < until:
        async with load.connection(port) as conversation:
            if not is_new:
                await conversation.ask(request(QUESTION, port))
            started = time.perf_counter()
            await conversation.ask(question, head_only=True)
            durations.append(time.perf_counter() - started)
            # So that what is left of this one does not meet the next.
            await asyncio.sleep(0.02)
    return durations


async def transfer(load: Load, port: int, *, megabytes: int, connections: int, tls: bool) -> None:
    """Read `megabytes` from the source, split over `connections`."""
    size = (megabytes << 20) // connections

    async def one() -> None:
        async with load.connection(port, tls=tls) as conversation:
            received = await conversation.drain(b"%d\n" % size)
            if received != size:
                raise ConnectionError(f"{received} of {size} bytes came")

    await asyncio.gather(*(one() for _ in range(connections)))


@contextlib.asynccontextmanager
async def idle_connections(load: Load, port: int, *, count: int, decrypted: bool) -> AsyncIterator[None]:
    """Hold `count` idle tunnels open, or connections that are decrypted and have had a request each."""
    question = request(QUESTION, port)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            conversation = await stack.enter_async_context(load.connection(port, tls=decrypted))
            if decrypted:
                await conversation.ask(question)
        yield
