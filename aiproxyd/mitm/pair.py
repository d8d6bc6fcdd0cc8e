"""Two streams that are relayed to each other: backpressure, ends, idle time. What passes is nobody's business here.

As it is, it is the plain tunnel for a side that is TLS of ours, where the kernel cannot move the bytes (`tunnel` is for the
rest). `relay` and `forward` look at the bytes by overriding what happens with them.

Half-close: plain sides keep it. A TLS side does not: before TLS 1.3 it has none, and OpenSSL drops what arrives after we said
that we are done; so the end of either direction ends both, once what was read before has been delivered.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.mitm.stream import Stream

# How long a peer that still sends is listened to after our last byte, in seconds: closing with its bytes unread makes the
# kernel reset the connection, and the reset may overtake what it was to read.
LINGER_SECONDS = 5.0


class Pair:
    """A client's stream and an upstream's."""

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        *,
        deadlines: Deadlines,
        idle_timeout_seconds: float,
        on_closed: Callable[[str], None],
    ) -> None:
        """Take over two connected, non-blocking sockets. Nothing moves before `start`.

        Args:
            client: Towards the client.
            upstream: Towards the destination.
            deadlines: Of the loop.
            idle_timeout_seconds: Without a byte in either direction.
            on_closed: Called once, with `eof`, `idle`, `error` or `drained`.
        """
        self._loop = asyncio.get_running_loop()
        self.client = Stream(client, self, self._loop)
        self.upstream = Stream(upstream, self, self._loop)
        self.bytes_to_client = 0
        self.bytes_to_upstream = 0
        self._deadlines = deadlines
        self._idle_timeout_seconds = idle_timeout_seconds
        self._deadline: Deadline | None = None
        self._on_closed: Callable[[str], None] | None = on_closed
        self._ended: set[Stream] = set()
        self._last_words: Stream | None = None
        """The stream that is closed, and all else with it, when what was written to it has left."""
        self._is_lingering = False

    def start(self) -> None:
        """Begin to move bytes."""
        self._deadline = self._deadlines.start(self._idle_timeout_seconds, self._on_idle)
        self.client.resume()
        self.upstream.resume()

    def close(self, reason: str = "drained", *, reset: bool = False) -> None:
        """Close both streams at once. May be called again.

        Args:
            reason: For `on_closed`.
            reset: Whether the peers are to see a reset.
        """
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is None:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self.client.close(reset=reset)
        self.upstream.close(reset=reset)
        on_closed(reason)

    # What the streams tell

    def readable(self, stream: Stream) -> None:
        """See `Owner`."""
        if self._is_lingering:
            if stream.discard():
                self.close("eof")
            return
        try:
            data = stream.read()
        except OSError as exc:
            self._lost(stream, exc)
            return
        if data is None:
            return
        if self._deadline is not None:
            self._deadline.touched = self._deadlines.now
        if not data:
            stream.pause()
            self._ended.add(stream)
            self._on_end(stream)
        elif stream is self.client:
            self._from_client(data)
        else:
            self._from_upstream(data)

    def drained(self, stream: Stream) -> None:
        """See `Owner`."""
        if self._deadline is not None:
            self._deadline.touched = self._deadlines.now
        if stream is self._last_words:
            self._say_goodbye(stream)
            return
        source = self._other(stream)
        if source in self._ended:
            stream.finish()
            self._close_if_done()
        else:
            self._resume(source)

    def unwritable(self, stream: Stream, error: OSError) -> None:
        """See `Owner`."""
        self._lost(stream, error)

    def broke(self, stream: Stream) -> None:  # noqa: ARG002
        """See `Owner`."""
        self.close("error")

    # What may be done otherwise

    def _from_client(self, data: bytes) -> None:
        self._forward(data, self.upstream)

    def _from_upstream(self, data: bytes) -> None:
        self._forward(data, self.client)

    def _on_end(self, stream: Stream) -> None:
        """Pass on the end of a direction."""
        other = self._other(stream)
        if isinstance(stream.socket, ssl.SSLSocket) or isinstance(other.socket, ssl.SSLSocket):
            self._end_with(other)
        elif not other.has_unsent:
            other.finish()
            self._close_if_done()

    def _lost(self, stream: Stream, error: OSError) -> None:  # noqa: ARG002
        """End both, because `stream` is broken."""
        self.close("error", reset=True)

    def _on_idle(self) -> None:
        self.close("idle")

    def _resume(self, stream: Stream) -> None:
        """Read from `stream` again, now that the other one takes bytes."""
        stream.resume()

    # What is the same for all

    def _close_if_done(self) -> None:
        if len(self._ended) == 2 and not (self.client.has_unsent or self.upstream.has_unsent):
            self.close("eof")

    def _other(self, stream: Stream) -> Stream:
        return self.upstream if stream is self.client else self.client

    def _forward(self, data: bytes, to: Stream) -> None:
        if to is self.client:
            self.bytes_to_client += len(data)
        else:
            self.bytes_to_upstream += len(data)
        try:
            left = to.write(data)
        except OSError as exc:
            self.unwritable(to, exc)
            return
        if not left:
            self._other(to).pause()

    def _end_with(self, stream: Stream, *, linger: bool = False) -> None:
        """Close everything once `stream` has taken what was written to it.

        Args:
            stream: Who is still to hear something.
            linger: Whether it may still be sending.
        """
        self._is_lingering = linger
        self._last_words = stream
        self._other(stream).pause()
        stream.pause()
        if not stream.has_unsent:
            self._say_goodbye(stream)

    def _say_goodbye(self, stream: Stream) -> None:
        other = self._other(stream)
        if not other.is_ragged:
            stream.finish()
        if not self._is_lingering:
            self.close("eof")
            return
        other.close()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._deadlines.start(LINGER_SECONDS, self._on_lingered)
        stream.resume()

    def _on_lingered(self) -> None:
        self.close("eof")
