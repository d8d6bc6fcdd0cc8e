"""The way through another proxy: a connection to it, TLS with it where its URL begins with `https://`, and a CONNECT.

Not a judge of destinations: `egress` has checked them, and decided that this is the way. What comes out is a plain socket, as if the
destination had been dialled.

Strategy: the answer's head is peeked at and then exactly it is taken, so that what the destination says right behind it stays in the
socket, where OpenSSL and `splice` find it.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

import msgspec

from aiproxyd.config.network import ProxyUrl
from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.bridge import Bridges
from aiproxyd.mitm.peeked_head import take_head
from aiproxyd.mitm.tls import upstream_failure
from aiproxyd.model.authority import Authority
from aiproxyd.wire.http1_head import Unfollowable, read_response

log = logging.getLogger(__name__)

# Proxies answer a CONNECT with a few lines; a page of theirs comes after the head.
MAX_HEAD_BYTES = 16384

# The same trouble is said once in so many seconds: each connection meets it.
_QUIET_SECONDS = 60.0


class DialFailed(AiproxydError):
    """The destination cannot be reached. The client gets 502."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A bounded word: `resolve`, `timeout`, `refused`, `unreachable`, `other`, and `upstream_proxy_` with `unreachable`, `tls`,
        `credentials`, `refused` or `protocol` behind it."""


class UpstreamProxySettings(msgspec.Struct, frozen=True):
    """How an upstream proxy is spoken to."""

    url: ProxyUrl
    context: ssl.SSLContext | None
    """For TLS with it; None when its URL begins with `http://`."""


class UpstreamProxy:
    """Opens connections through one proxy."""

    def __init__(
        self, settings: UpstreamProxySettings, *, dial: Callable[[Authority], Awaitable[socket.socket]], bridges: Bridges
    ) -> None:
        """
        Args:
            settings: See there.
            dial: Connects to the proxy's own address; raises DialFailed.
            bridges: Keeps what is carried over TLS with it.
        """
        self._url = settings.url
        self._context = settings.context
        self._dial = dial
        self._bridges = bridges
        self._said: dict[str, float] = {}

    @property
    def authorization(self) -> str:
        """Value of `Proxy-Authorization`; empty for none."""
        return self._url.authorization

    async def open(self) -> socket.socket:
        """Return a connection to the proxy itself, for requests in absolute form.

        Raises:
            DialFailed: It cannot be reached, or not safely.
        """
        try:
            connection = await self._dial(self._url.authority)
        except DialFailed as exc:
            self._say("unreachable", exc.reason)
            raise DialFailed("upstream_proxy_unreachable") from exc
        return connection if self._context is None else await self._secure(connection, self._context)

    async def connect(self, authority: Authority) -> socket.socket:
        """Return a connection to `authority` through the proxy.

        Raises:
            DialFailed: The proxy cannot be reached, or does not connect.
        """
        connection = await self.open()
        try:
            await self._ask(connection, authority)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _secure(self, connection: socket.socket, context: ssl.SSLContext) -> socket.socket:
        try:
            # How long it may take is our caller's business.
            return await self._bridges.secured(connection, context, server_hostname=self._url.authority.host)
        except OSError as exc:
            _, sentence = upstream_failure(exc)
            self._say("tls", sentence)
            raise DialFailed("upstream_proxy_tls") from exc

    async def _ask(self, connection: socket.socket, authority: Authority) -> None:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self._url.authorization:
            lines.append(f"Proxy-Authorization: {self._url.authorization}")
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(connection, ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
            while True:
                answer = read_response(await _read_head(connection))
                if answer.status_code >= 200 or answer.status_code == 101:
                    break
        except (OSError, EOFError, Unfollowable) as exc:
            self._say("protocol", "it does not answer a CONNECT as a proxy does")
            raise DialFailed("upstream_proxy_protocol") from exc
        if answer.status_code == 407:
            given = "those of its URL" if self._url.authorization else "its URL has none"
            self._say("credentials", f"it asks for credentials (407), {given}")
            raise DialFailed("upstream_proxy_credentials")
        if not 200 <= answer.status_code < 300:
            self._say("refused", f"it answers {answer.status_code}", destination=str(authority))
            raise DialFailed("upstream_proxy_refused")

    def refused_credentials(self) -> None:
        """Say that the proxy answered a plain request with 407."""
        self._say("credentials", "it asks for credentials (407)")

    def _say(self, kind: str, what: str, **facts: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said.get(kind, -_QUIET_SECONDS) >= _QUIET_SECONDS:
            self._said[kind] = now
            about = "".join(f" ({name} {value})" for name, value in facts.items())
            log.warning("the upstream proxy %s cannot be used: %s%s", self._url.authority, what, about)


async def _read_head(connection: socket.socket) -> bytes:
    """Return a head with its empty line, and leave what follows in the socket.

    Raises:
        EOFError: The connection ended first, or the head is larger than any of a proxy.
        OSError: The connection broke.
    """
    head = bytearray()
    while len(head) <= MAX_HEAD_BYTES:
        try:
            if take_head(connection, head):
                return bytes(head)
        except (BlockingIOError, InterruptedError):
            await _readable(connection)
    raise EOFError


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = connection.fileno()

    def readable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, readable)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
