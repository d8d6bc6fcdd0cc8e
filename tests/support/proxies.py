"""A proxy behind ours that does as it is told: it keeps what it was asked, and leads every CONNECT to one port of loopback."""

import contextlib
import select
import socket
import ssl
import threading
from typing import Self

from tests.support.origins import Origin

CONNECTED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 scripted\r\n\r\n"

# Without a byte in either direction.
_QUIET_SECONDS = 60


class ScriptedProxy:
    """A context manager; speaks TLS where it is given a context."""

    def __init__(self, leads_to: int, *, answer: bytes = CONNECTED, context: ssl.SSLContext | None = None) -> None:
        """
        Args:
            leads_to: Port of loopback.
            answer: To each request; what does not begin like `CONNECTED` ends the connection after it, and nothing at all leaves the
                client waiting.
            context: Of a server.
        """
        self.heads: list[bytes] = []
        self.answer = answer
        self._leads_to = leads_to
        self._context = context
        self._origin = Origin(self._serve)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._origin.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._origin.__exit__(*exception)

    @property
    def port(self) -> int:
        return self._origin.port

    def url(self, credentials: str = "") -> str:
        """Return its URL, with `credentials` and an @ before the host if there are any."""
        scheme = "https" if self._context is not None else "http"
        return f"{scheme}://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket) -> None:
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with contextlib.closing(connection):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)
                if not byte:
                    return
                head += byte
            self.heads.append(head)
            if not self.answer:
                self._over.wait(60)
            elif not head.startswith(b"CONNECT "):
                self._lead(connection, head)
            elif self.answer is CONNECTED:
                connection.sendall(self.answer)
                self._lead(connection, b"")
            else:
                connection.sendall(self.answer)

    def _lead(self, connection: socket.socket, first: bytes) -> None:
        if self.answer is not CONNECTED:
            connection.sendall(self.answer)
            return
        with socket.create_connection(("127.0.0.1", self._leads_to)) as origin:
            origin.sendall(first)
            _carry(connection, origin)


def _carry(one: socket.socket, other: socket.socket) -> None:
    """Move bytes both ways until both sides ended, or one of them where there is TLS, which knows no half.

    In one thread: OpenSSL keeps what it waits for in the connection, so a thread that reads and one that writes make each other
    believe, once in some hundred connections, that it broke.
    """
    to = {one: other, other: one}
    unsent = {one: b"", other: b""}
    speaking = {one, other}
    for side in to:
        side.setblocking(False)
    while speaking or any(unsent.values()):
        readable, writable, _ = select.select(
            [side for side in speaking if not unsent[to[side]]], [side for side in to if unsent[side]], [], _QUIET_SECONDS
        )
        if not (readable or writable):
            return
        for side in readable:
            try:
                data = side.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            unsent[to[side]] = data
            if not data:
                if isinstance(one, ssl.SSLSocket) or isinstance(other, ssl.SSLSocket):
                    return
                speaking.discard(side)
                to[side].shutdown(socket.SHUT_WR)
        for side in to:
            if unsent[side]:
                try:
                    unsent[side] = unsent[side][side.send(unsent[side]) :]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    continue
