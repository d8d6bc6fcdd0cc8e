"""Clients that a test holds in its hands: sockets through the proxy, written and read byte by byte."""

import base64
import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.support.daemon import Daemon

CLIENT_TIMEOUT_SECONDS = 30.0


def credentials(user: str = "alice", token: str | None = None) -> str:
    """Return the value of a Proxy-Authorization field."""
    return "Basic " + base64.b64encode(f"{user}:{token or user + '-token'}".encode()).decode()


class Answer:
    """One HTTP response as it came."""

    def __init__(self, head: bytes, body: bytes, trailers: bytes, interim: list[bytes], chunks: list[int]) -> None:
        self.head = head
        """Status line and fields, without the empty line."""
        self.body = body
        """After transfer coding, still content-coded."""
        self.trailers = trailers
        self.interim = interim
        """Heads of 1xx answers before it."""
        self.chunks = chunks
        """Sizes of the chunks."""

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: str) -> str:
        """Return the first value of `name`, empty when it is absent."""
        return next((value for field, value in self.headers if field.lower() == name.lower()), "")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Every field in order."""
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [(name.decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in pairs]

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)


class Wire:
    """One connection to the proxy, and whatever is spoken through it."""

    def __init__(self, daemon: Daemon, *, timeout_seconds: float = CLIENT_TIMEOUT_SECONDS) -> None:
        host, _, port = daemon.listen.rpartition(":")
        self.socket: socket.socket = socket.create_connection((host, int(port)), timeout=timeout_seconds)
        self._buffer = bytearray()
        self._trailers = b""
        self._chunks: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, without ceremony."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def connect(self, authority: str, *, user: str | None = "alice", token: str | None = None) -> Answer:
        """Send a CONNECT and return its answer; a 200 has no body."""
        proof = f"Proxy-Authorization: {credentials(user, token)}\r\n" if user else ""
        self.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{proof}\r\n".encode())
        head = self.read_head()
        return Answer(head, b"" if head.split(b" ", 2)[1] == b"200" else b"".join(self._body(head)), b"", [], [])

    def start_tls(self, host: str, ca_file: Path, alpn: tuple[str, ...] = ("http/1.1",)) -> None:
        """Make TLS with `host` through the tunnel.

        Raises:
            ssl.SSLError: The certificate is not trusted, or there was none.
        """
        context = ssl.create_default_context(cafile=str(ca_file))
        context.set_alpn_protocols(list(alpn))
        self.socket = context.wrap_socket(self.socket, server_hostname=host)

    def request(
        self,
        method: str,
        target: str,
        host: str,
        body: bytes | list[bytes] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        read: bool = True,
    ) -> Answer | None:
        """Send a request and return its answer.

        Args:
            method: The method.
            target: As it stands in the request line.
            host: The Host field.
            body: Bytes get a Content-Length; a list is sent as chunks.
            headers: Further fields.
            read: Whether to read the answer.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        if isinstance(body, bytes):
            self.send(body)
        elif body is not None:
            for chunk in body:
                self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.send(b"0\r\n\r\n")
        return self.read_answer() if read else None

    def receive(self) -> bytes:
        """Return what came next; empty at the end."""
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data
        return self.socket.recv(1 << 18)

    def read_until(self, end: bytes) -> bytes:
        """Return everything up to and with `end`.

        Raises:
            EOFError: The connection ended before.
        """
        while (at := self._buffer.find(end)) < 0:
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError(f"ended after {bytes(self._buffer[:2000])!r}")
            self._buffer += data
        at += len(end)
        found = bytes(self._buffer[:at])
        del self._buffer[:at]
        return found

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes.

        Raises:
            EOFError: The connection ended before.
        """
        while len(self._buffer) < size:
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError(f"ended {size - len(self._buffer)} bytes early")
            self._buffer += data
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def read_head(self) -> bytes:
        """Return the next head, without its empty line."""
        return self.read_until(b"\r\n\r\n")[:-4]

    def read_answer(self, method: str = "POST") -> Answer:
        """Return the next final answer, whole.

        Raises:
            EOFError: It was cut.
        """
        interim = []
        while (head := self.read_head()).split(b" ", 2)[1].startswith(b"1") and b" 101" not in head[:12]:
            interim.append(head)
        self._trailers, self._chunks = b"", []
        body = b"" if method == "HEAD" else b"".join(self._body(head))
        return Answer(head, body, self._trailers, interim, self._chunks)

    def events(self, head: bytes) -> Iterator[bytes]:
        """Yield the events of an uncompressed chunked stream, one at a time, as they come."""
        held = bytearray()
        for data in self._body(head):
            held += data
            while (at := held.find(b"\n\n")) >= 0:
                yield bytes(held[: at + 2])
                del held[: at + 2]

    def _body(self, head: bytes) -> Iterator[bytes]:
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            while size := int(self.read_until(b"\r\n").partition(b";")[0], 16):
                self._chunks.append(size)
                yield self.read_exactly(size)
                self.read_exactly(2)
            while (line := self.read_until(b"\r\n")) != b"\r\n":
                self._trailers += line
        elif b"content-length" in fields:
            yield self.read_exactly(int(fields[b"content-length"]))
        else:
            while data := self.receive():
                yield data


@contextlib.contextmanager
def decrypted(
    daemon: Daemon, host: str, *, user: str = "alice", timeout_seconds: float = CLIENT_TIMEOUT_SECONDS
) -> Iterator[Wire]:
    """Yield a connection that speaks TLS with the proxy in the place of `host`."""
    with Wire(daemon, timeout_seconds=timeout_seconds) as wire:
        answer = wire.connect(f"{host}:443", user=user)
        assert answer.status == 200, (answer.head, answer.body)
        wire.start_tls(host, daemon.ca_file)
        yield wire


def message(model: str, prompt: str = "hello", *, stream: bool = False, **more: Any) -> bytes:
    """Return the body of a request to /v1/messages."""
    body = {"model": model, "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": prompt}], **more}
    return json.dumps(body).encode()
