"""Origins behind a tunnel that speak no HTTP: they count, hash and send bytes as fast as sockets go."""

import hashlib
import socket
import threading
from collections.abc import Callable
from typing import Self

PIECE_BYTES = 1 << 20

# No two places of a megabyte are alike in eight bytes, so a lost, doubled or exchanged piece shows in the hash.
PATTERN = b"".join((number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") for number in range(PIECE_BYTES // 8))


def pattern_sha256(size: int) -> str:
    """Return the hash of `size` bytes of the pattern."""
    digest = hashlib.sha256()
    for start in range(0, size, PIECE_BYTES):
        digest.update(memoryview(PATTERN)[: min(PIECE_BYTES, size - start)])
    return digest.hexdigest()


def send_pattern(connection: socket.socket, size: int) -> None:
    """Send `size` bytes of the pattern."""
    view = memoryview(PATTERN)
    for start in range(0, size, PIECE_BYTES):
        connection.sendall(view[: min(PIECE_BYTES, size - start)])


def receive_all(connection: socket.socket) -> tuple[int, str]:
    """Return number and hash of the bytes until the other side ends."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    digest, size = hashlib.sha256(), 0
    while count := connection.recv_into(buffer):
        digest.update(buffer[:count])
        size += count
    return size, digest.hexdigest()


class Origin:
    """A listener on loopback; each connection is served by `serve` in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._serving: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the accept, which a close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._thread, *self._serving):
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self._serving.append(thread)
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(60)
            try:
                self._serve(connection)
            except OSError:
                return
