"""A tunnel: two plain sockets whose bytes the kernel moves from one to the other, and which nobody looks at.

Where one side is TLS of ours, `pair.Pair` is the tunnel.

Strategy: `splice` through a pipe moves pages, not bytes. A pipe is taken from a pool when bytes are there and given back when they
have left, so that an idle tunnel holds two sockets and nothing else. Without a pipe (no descriptors left) bytes are copied.

Measured on 2 cores at 2 GHz class, four connections, uvloop, CPU ms of the proxy per MB, writers of 256 KiB | 16 KiB:
  splice, 1 MiB pipes   0.11-0.13 | 0.14-0.19
  splice, 64 KiB pipes  0.20-0.31 | 0.38-0.39
  recv_into and send    0.30      | 0.32
  asyncio Protocol pair 0.27-0.28 | 0.27-0.28
The whole way of a new tunnel, from the CONNECT's head to an idle tunnel, takes 0.24-0.35 ms; an idle one holds 3 KiB.

Facts: libuv stops watching a socket at its first error and says so once, so each move asks for the socket's error as well: a reset
that arrives together with data would otherwise be missed.
"""

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Callable

from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.model.authority import is_loopback

log = logging.getLogger(__name__)

# What one move takes at most: large enough that system calls do not count, small enough to be fair (about 0.2 ms).
_MOVE_BYTES = 1 << 20
_COPY_BYTES = 65536

# A move of so much is bulk: more of the same is on its way.
_BULK_BYTES = 16384

# Unprivileged users have 64 MiB of pipe buffers (fs.pipe-user-pages-soft); half of it is ours, the rest of a tunnel's pipes
# have the default 64 KiB. A pipe's pages exist only while bytes are in it.
_MAX_LARGE_PIPES = 32
_MAX_IDLE_PIPES = 32

_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """A pipe, empty while it is in the pool."""

    __slots__ = ("is_large", "read_end", "write_end")

    def __init__(self, *, large: bool) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.is_large = large
        if large:
            try:
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, _MOVE_BYTES)
            except OSError:
                self.is_large = False  # the user's quota; the default size works too

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


class PipePool:
    """Pipes that no tunnel needs at the moment."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._large = 0

    def take(self) -> Pipe | None:
        """Return an empty pipe, or None when there can be no more."""
        if self._idle:
            return self._idle.pop()
        try:
            pipe = Pipe(large=self._large < _MAX_LARGE_PIPES)
        except OSError:
            return None
        self._large += pipe.is_large
        return pipe

    def give(self, pipe: Pipe, *, empty: bool = True) -> None:
        """Take a pipe back; one that is not empty is closed."""
        if empty and len(self._idle) < _MAX_IDLE_PIPES:
            self._idle.append(pipe)
            return
        self._large -= pipe.is_large
        pipe.close()

    def close(self) -> None:
        """Close the idle pipes."""
        while self._idle:
            self._idle.pop().close()


class Tunnel:
    """Two sockets and both directions between them."""

    __slots__ = ("_deadline", "_deadlines", "_loop", "_on_closed", "_pipes", "_to_client", "_to_upstream", "client", "upstream")

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        *,
        pipes: PipePool,
        deadlines: Deadlines,
        idle_timeout_seconds: float,
        on_closed: Callable[[str], None],
    ) -> None:
        """Take over two connected, non-blocking sockets and begin.

        Args:
            client: Towards the client.
            upstream: Towards the destination.
            pipes: Shared by the tunnels of a loop.
            deadlines: Of the loop.
            idle_timeout_seconds: Without a byte in either direction.
            on_closed: Called once, with `eof`, `idle`, `error` or `drained`.
        """
        self.client = client
        self.upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._pipes = pipes
        self._deadlines = deadlines
        self._on_closed: Callable[[str], None] | None = on_closed
        self._deadline: Deadline = deadlines.start(idle_timeout_seconds, self._idle)
        self._to_upstream = _Direction(self, client, upstream)
        self._to_client = _Direction(self, upstream, client)
        self._to_upstream.watch()
        self._to_client.watch()

    @property
    def bytes_to_upstream(self) -> int:
        """Bytes the upstream's socket has taken."""
        return self._to_upstream.moved_bytes

    @property
    def bytes_to_client(self) -> int:
        """Bytes the client's socket has taken."""
        return self._to_client.moved_bytes

    def close(self, reason: str = "drained", *, reset: bool = False) -> None:
        """Close both sockets at once. May be called again.

        Args:
            reason: For `on_closed`.
            reset: Whether the peers are to see a reset, where a plain end would look like a complete one.
        """
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is None:
            return
        self._deadline.cancel()
        self._to_upstream.stop()
        self._to_client.stop()
        for end in (self.client, self.upstream):
            if reset:
                try:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                except OSError:
                    pass
            end.close()
        on_closed(reason)

    def _idle(self) -> None:
        self.close("idle")

    def touched(self) -> None:
        """A direction moved bytes."""
        self._deadline.touched = self._deadlines.now

    def direction_ended(self) -> None:
        """A direction passed its end on."""
        if self._to_upstream.is_over and self._to_client.is_over:
            self.close("eof")


class _Direction:
    """From one socket to the other."""

    __slots__ = (
        "_copied", "_has_ended", "_is_broken", "_is_bulk", "_is_reading", "_is_writing", "_pipe", "_piped", "_sink", "_sink_fd", "_source",
        "_source_fd", "_tunnel", "is_over", "moved_bytes",
    )  # fmt: skip

    def __init__(self, tunnel: Tunnel, source: socket.socket, sink: socket.socket) -> None:
        self._tunnel = tunnel
        self._source = source
        self._sink = sink
        self._source_fd = source.fileno()
        self._sink_fd = sink.fileno()
        self._pipe: Pipe | None = None
        self._piped = 0
        """Bytes in the pipe."""
        self._copied = b""
        """Bytes that were copied for want of a pipe, and not sent yet."""
        self._has_ended = False
        self._is_broken = False
        self._is_bulk = False
        """Whether a move was ever bulk."""
        self._is_reading = False
        self._is_writing = False
        self.is_over = False
        """Whether the end of the direction was passed on."""
        self.moved_bytes = 0

    def watch(self) -> None:
        """Wait for bytes of the source."""
        if not self._is_reading:
            self._is_reading = True
            self._tunnel._loop.add_reader(self._source_fd, self._readable)  # noqa: SLF001  (one machine in two classes)

    def stop(self) -> None:
        """Wait for nothing; whatever is held is lost."""
        self._unwatch()
        if self._is_writing:
            self._is_writing = False
            self._tunnel._loop.remove_writer(self._sink_fd)  # noqa: SLF001
        if self._pipe is not None:
            self._tunnel._pipes.give(self._pipe, empty=False)  # noqa: SLF001
            self._pipe = None
        self._copied = b""

    def _unwatch(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._tunnel._loop.remove_reader(self._source_fd)  # noqa: SLF001

    def _readable(self) -> None:
        if not self._is_reading:
            return
        try:
            self._read()
        except (BlockingIOError, InterruptedError):
            self._release()
        except OSError:
            self._tunnel.close("error", reset=True)
        except Exception:
            # The supervisor of the loop's calls: without it a fault of ours would be met again at each turn of the loop.
            log.exception("a tunnel is closed because it failed")
            self._tunnel.close("error", reset=True)

    def _writable(self) -> None:
        try:
            self._write()
        except OSError:
            self._tunnel.close("error", reset=True)
        except Exception:
            log.exception("a tunnel is closed because it failed")
            self._tunnel.close("error", reset=True)

    def _read(self) -> None:
        if self._pipe is None:
            self._pipe = self._tunnel._pipes.take()  # noqa: SLF001
        if self._pipe is not None:
            count = self._piped = os.splice(self._source_fd, self._pipe.write_end, _MOVE_BYTES, flags=_SPLICE_FLAGS)
        else:
            self._copied = self._source.recv(_COPY_BYTES)
            count = len(self._copied)
        self._tunnel.touched()
        if count:
            if not self._is_broken and self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._is_broken = True
            if count >= _BULK_BYTES and not self._is_bulk:
                self._is_bulk = True
                _do_not_pace(self._sink)
            self._write()
            if self._is_broken:
                # The loop may never call again; what came before the reset is still to be moved.
                self._tunnel._loop.call_soon(self._readable)  # noqa: SLF001
        elif self._is_broken:
            self._tunnel.close("error", reset=True)
        else:
            self._has_ended = True
            self._unwatch()
            self._write()

    def _write(self) -> None:
        """Move what is held to the sink. Then go on, or pass on the end; or wait until the sink takes more."""
        try:
            while self._piped and self._pipe is not None:
                moved = os.splice(self._pipe.read_end, self._sink_fd, self._piped, flags=_SPLICE_FLAGS)
                self._piped -= moved
                self.moved_bytes += moved
            while self._copied:
                moved = self._sink.send(self._copied)
                self._copied = self._copied[moved:]
                self.moved_bytes += moved
        except (BlockingIOError, InterruptedError):
            self._unwatch()
            if not self._is_writing:
                self._is_writing = True
                self._tunnel._loop.add_writer(self._sink_fd, self._writable)  # noqa: SLF001
            self._tunnel.touched()
            return
        if self._is_writing:
            self._is_writing = False
            self._tunnel._loop.remove_writer(self._sink_fd)  # noqa: SLF001
            if not self._has_ended:
                self.watch()
        self._release()
        if self._has_ended:
            self._sink.shutdown(socket.SHUT_WR)
            self.is_over = True
            self._tunnel.direction_ended()

    def _release(self) -> None:
        if self._pipe is not None and not self._piped:
            self._tunnel._pipes.give(self._pipe)  # noqa: SLF001
            self._pipe = None


def _do_not_pace(sink: socket.socket) -> None:
    """Let a socket to a loopback address send without BBR, which lets each socket wait by a timer of its own.

    In turns 0.29 ms a MB of TLS with it and 0.25 without, 0.28 and 0.23 of raw bytes. Towards other machines, and with other algorithms,
    the operator's choice stands.
    """
    try:
        if not sink.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"bbr"):
            return
        if is_loopback(sink.getpeername()[0]):
            sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    except OSError:
        pass  # no TCP socket, or a system that does not allow it: then it is paced
