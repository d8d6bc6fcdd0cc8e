"""A proxy behind ours that does as it is told: it keeps what it was asked, and leads every CONNECT to one port of loopback."""

import contextlib
import socket
import ssl
import threading
from typing import Self

from tests.support.origins import Origin

CONNECTED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 scripted\r\n\r\n"


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
            back = threading.Thread(target=_pump, args=(origin, connection), daemon=True)
            back.start()
            _pump(connection, origin)
            back.join(30)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(
            socket.SHUT_RDWR if isinstance(source, ssl.SSLSocket) or isinstance(sink, ssl.SSLSocket) else socket.SHUT_WR
        )
