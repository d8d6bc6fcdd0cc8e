"""One end of a relay: a non-blocking socket, plain or TLS, that calls its owner when something can be done.

Not a transport of the loop: it reads when asked, hands over what one TLS record (or one read) brought, and keeps unsent bytes only
when the peer does not take them. TLS is OpenSSL on the socket itself (`SSLSocket`), not beside it: no memory buffers, half the calls.

Facts:
  - libuv stops watching a socket at its first error and says so once. A reset that arrives together with data would be missed by
    who reads only the data, so each read asks for the socket's error as well.
  - A TLS record holds 16 KiB at most and OpenSSL reads no further, so what is left is in the kernel and the loop calls again.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

# One TLS record. More than one is read at a time only in bulk, where each saves a turn of the loop.
_READ_BYTES = 16384
_BULK_BYTES = 4 * _READ_BYTES

type Secured = Callable[[OSError | None], None]

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)
_CANNOT_SEND = (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


class Owner(Protocol):
    """Who a stream belongs to. Its methods are called by the loop, one at a time."""

    def readable(self, stream: "Stream") -> None:
        """Something can be read: call `Stream.read`."""

    def drained(self, stream: "Stream") -> None:
        """All that was written has left."""

    def unwritable(self, stream: "Stream", error: OSError) -> None:
        """What was written before cannot leave any more. What the peer said last may still be read."""

    def broke(self, stream: "Stream") -> None:
        """A method of the owner raised, which is a bug: close what hangs on the stream. Must not raise."""


class Stream:
    """A socket, its TLS if any, and the bytes it has not taken yet."""

    __slots__ = (
        "_error",
        "_loop",
        "_on_secured",
        "_owner",
        "_receive",
        "_transmit",
        "_unsent",
        "_writing",
        "fileno",
        "is_closed",
        "is_paused",
        "is_ragged",
        "socket",
    )

    def __init__(self, connection: socket.socket, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        """Take over a connected, non-blocking socket."""
        self.socket: socket.socket | ssl.SSLSocket = connection
        self.fileno = connection.fileno()
        self.is_closed = False
        self.is_ragged = False
        """Whether TLS ended without saying so, as a cut connection does."""
        self._use(connection)
        self._loop = loop
        self._owner = owner
        self.is_paused = True
        """Whether nobody listens for what arrives."""
        self._writing = False
        self._on_secured: Secured | None = None
        """Who waits for the end of the handshake, while there is one."""
        self._error: OSError | None = None
        self._unsent: deque[memoryview] = deque()

    # TLS

    def secure(
        self,
        context: ssl.SSLContext,
        on_secured: Secured,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Begin TLS; `on_secured` is told how it went, never before this returns: None, or what went wrong."""
        self._on_secured = on_secured
        try:
            self.socket = context.wrap_socket(
                self.socket,
                server_side=server_side,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
                server_hostname=server_hostname,
                session=session,
            )
        except (OSError, ValueError) as exc:  # ValueError: a name that TLS cannot say
            error = exc if isinstance(exc, OSError) else OSError(str(exc))
            self._loop.call_soon(self.guard, self._secured, error)
            return
        self._use(self.socket)
        if server_side:
            self._watch_reads()  # the client speaks first
        else:
            self._loop.call_soon(self.guard, self._shake)

    def _shake(self) -> None:
        if self._on_secured is None or self.is_closed:
            return
        try:
            self.socket.do_handshake()  # type: ignore[union-attr]  # wrapped by now
        except ssl.SSLWantReadError:
            self._watch_reads()
            self._ignore_writes()
        except ssl.SSLWantWriteError:
            self._watch_writes()
        except OSError as exc:
            self._secured(exc)
        else:
            self._secured(None)

    def _secured(self, error: OSError | None) -> None:
        on_secured, self._on_secured = self._on_secured, None
        if on_secured is None or self.is_closed:
            return
        self._ignore_reads()
        self._ignore_writes()
        on_secured(error)

    def _use(self, connection: socket.socket) -> None:
        """Read from and write to `connection` from now on."""
        # A record costs six calls of Python through SSLSocket, and none by what it calls in the end, which has the same errors.
        below = getattr(connection, "_sslobj", None)
        self._receive: Callable[[int], bytes] = connection.recv if below is None else below.read
        self._transmit: Callable[[bytes | memoryview], int] = connection.send if below is None else below.write

    # Reading

    def resume(self) -> None:
        """Call the owner when something can be read."""
        if not self.is_closed:
            self._watch_reads()

    def pause(self) -> None:
        """Leave what arrives in the kernel, so that the sender feels it."""
        self._ignore_reads()

    def read(self) -> bytes | None:
        """Return what arrived: some bytes, `b""` at the end of the direction, None when it was nothing after all.

        Raises:
            OSError: The connection is broken.
        """
        try:
            data = self._receive(_READ_BYTES)
            if len(data) == _READ_BYTES:
                data = self._read_bulk(data)
        except _WOULD_BLOCK:
            return None
        except ssl.SSLWantWriteError:
            self._watch_writes()  # TLS has something of its own to say first
            return None
        except ssl.SSLEOFError:
            self.is_ragged = True
            data = b""
        except ssl.SSLZeroReturnError:
            data = b""
        if not data:
            if self._error is not None:
                raise self._error
            return data
        if self._error is None:
            number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                return data
            # A reset after the peer's end answers what TLS sends when it meets an end without close_notify: nothing is lost by it.
            if number != errno.EPIPE:
                self._error = ConnectionResetError(number, "the peer reset the connection")
        # The loop may never call again; what came before the reset is still to be read.
        self._loop.call_soon(self.on_readable)
        return data

    def _read_bulk(self, data: bytes) -> bytes:
        parts = [data]
        size = len(data)
        while size < _BULK_BYTES:
            try:
                part = self._receive(_READ_BYTES)
            except _WOULD_BLOCK:
                break
            except OSError as exc:
                # What came before the fault comes first. TLS meets its own faults again, a socket tells them once.
                if not isinstance(exc, ssl.SSLError):
                    self._error = exc
                break
            if not part:
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def on_readable(self) -> None:
        try:
            if self._on_secured is not None:
                self._shake()
            elif not self.is_paused:
                self._owner.readable(self)
        except Exception as exc:
            self.fail(exc)

    # Writing

    @property
    def has_unsent(self) -> bool:
        """Whether the peer has not taken all that was written."""
        return bool(self._unsent)

    def write(self, data: bytes) -> bool:
        """Send `data`; return whether all of it left. What did not is kept, and the owner told when it has.

        Raises:
            OSError: The connection is broken.
        """
        if self._unsent:
            self._unsent.append(memoryview(data))
            return False
        try:
            sent = self._transmit(data) if data else 0
        except _CANNOT_SEND:
            sent = 0
        if sent == len(data):
            return True  # as nearly always
        rest = self._send(memoryview(data)[sent:])
        if not rest:
            return True
        self._unsent.append(rest)
        self._watch_writes()
        return False

    def _send(self, data: memoryview) -> memoryview:
        while data:
            try:
                # With TLS this sends one record at a time.
                data = data[self._transmit(data) :]
            except _CANNOT_SEND:
                break
        return data

    def _on_writable(self) -> None:
        try:
            if self._on_secured is not None:
                self._shake()
            elif self._unsent:
                self._flush()
            elif not self.is_closed:
                self._ignore_writes()
                self.on_readable()  # TLS had something of its own to say before it could read
        except Exception as exc:
            self.fail(exc)

    def _flush(self) -> None:
        try:
            while self._unsent:
                rest = self._send(self._unsent[0])
                if rest:
                    self._unsent[0] = rest
                    return
                self._unsent.popleft()
        except OSError as exc:
            self._unsent.clear()
            self._ignore_writes()
            self._owner.unwritable(self, exc)
            return
        self._ignore_writes()
        self._owner.drained(self)

    def guard(self, call: Callable[..., object], *arguments: object) -> None:
        """Call something that concerns this stream; when that raises, which is a bug, the owner is told that it broke."""
        try:
            call(*arguments)
        except Exception as exc:
            self.fail(exc)

    def fail(self, fault: Exception) -> None:
        """Tell the owner that a method of its raised, which is a bug."""
        # The supervisor of the loop's calls: without it a fault of ours would be met again at each turn of the loop,
        # with a client that waits for ever.
        log.error("a connection is closed because its relay failed", exc_info=fault)
        self._owner.broke(self)

    # Ending

    def discard(self) -> bool:
        """Read and forget what arrived, below TLS; return whether the direction ended."""
        try:
            return not socket.socket.recv(self.socket, _BULK_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def finish(self) -> None:
        """Say that nothing more will be written. After it, what arrives can be read from a plain socket, from TLS only discarded.

        Call it when nothing is unsent. To cut TLS as a broken connection does, call `close` without it.
        """
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                try:
                    # Sends close_notify, then asks for the peer's, which is not waited for.
                    self.socket.unwrap()
                except (OSError, ValueError):
                    pass
            # Not SSLSocket.shutdown, which forgets the TLS state.
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        except OSError:
            pass  # gone already

    def release(self) -> socket.socket:
        """Give the plain socket back, which nobody watches any more; the stream is spent."""
        self._ignore_reads()
        self._ignore_writes()
        self.is_closed = True
        return self.socket

    def close(self, *, reset: bool = False) -> None:
        """Close the socket. May be called again.

        Args:
            reset: Whether the peer is to see a reset, where a plain end would look like a complete one.
        """
        if self.is_closed:
            return
        self.is_closed = True
        self._on_secured = None
        self._ignore_reads()
        self._ignore_writes()
        self._unsent.clear()
        if reset:
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            except OSError:
                pass
        self.socket.close()
        # Without its TLS, which knows the descriptor by a number that may be another connection's soon.
        self._use(self.socket)

    # The loop

    def _watch_reads(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self._loop.add_reader(self.fileno, self.on_readable)

    def _ignore_reads(self) -> None:
        if not self.is_paused:
            self.is_paused = True
            self._loop.remove_reader(self.fileno)

    def _watch_writes(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self.fileno, self._on_writable)

    def _ignore_writes(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self.fileno)
