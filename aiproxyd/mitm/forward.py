"""One plain `http://` request that a client sent to us in absolute form, forwarded to its origin, and its answer.

Not a proxy's connection pool: the origin's connection is used once. The client's may be used again, for a request to anywhere,
and that one gets its own verdict. Nothing is recorded: plain HTTP is nobody's AI traffic (such a request is refused before).
"""

import socket
from collections.abc import Callable

from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.pair import Pair
from aiproxyd.mitm.stream import Stream
from aiproxyd.model.head import RequestHead
from aiproxyd.wire.http1 import End, Head, Opaque, RequestFollower, ResponseFollower
from aiproxyd.wire.http1_head import keeps_alive, plain_answer

_CHALLENGE = b"HTTP/1.1 407 "
_NO_CREDENTIALS = plain_answer(502, "Bad Gateway", "the proxy behind this one asks this one for credentials", close=True)


class PlainExchange(Pair):
    """A request on its way to an origin, and the answer back."""

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        *,
        deadlines: Deadlines,
        idle_timeout_seconds: float,
        max_head_bytes: int,
        on_closed: Callable[[str], None],
        on_done: Callable[[bytes], None],
        on_proxy_challenge: Callable[[], None] | None = None,
    ) -> None:
        """Take over two connected, non-blocking sockets. See `Pair`.

        Args:
            client: Towards the client.
            upstream: Towards the origin.
            deadlines: Of the loop.
            idle_timeout_seconds: Without a byte in either direction.
            max_head_bytes: Of the response.
            on_closed: See `Pair`; called after `on_done` too.
            on_done: Called when the client's connection is free for another request, with what it sent of that one already.
            on_proxy_challenge: Called when `upstream` is another proxy, which wants credentials of us. Its 407 is not for the client.
        """
        super().__init__(client, upstream, deadlines=deadlines, idle_timeout_seconds=idle_timeout_seconds, on_closed=on_closed)
        self._on_done = on_done
        self._on_proxy_challenge = on_proxy_challenge
        self._first = b""
        """The beginning of a proxy's answer, while its status is not known."""
        self._requests = RequestFollower(max_head_bytes=max_head_bytes)
        self._responses = ResponseFollower(max_head_bytes=max_head_bytes)
        self._is_sent = False
        """Whether the request's body is whole."""
        self._is_kept = False
        """Whether both ends mean to use the client's connection again."""
        self._is_opaque = False
        """Whether both directions go on unfollowed, because the client itself left HTTP."""
        self._is_upgraded = False
        self._next: list[bytes] = []
        """What the client sent after its request."""

    def send(self, raw: bytes, head: RequestHead, outgoing: bytes, received: bytes) -> None:
        """Send the request's head and begin.

        Args:
            raw: The head as it came.
            head: The same, parsed.
            outgoing: The same, as the origin is to see it.
            received: What came after it.
        """
        self._is_kept = keeps_alive(head) and "close" not in head.headers.tokens("proxy-connection")
        self._responses.expect(head)
        # The follower sees the head as well, to know how long the body is.
        self._is_sent = any(isinstance(piece, End) for piece in self._requests.feed(raw))
        self.start()
        self._forward(outgoing, self.upstream)
        if received:
            self._from_client(received)

    def _from_client(self, data: bytes) -> None:
        if self._is_opaque:
            self._forward(data, self.upstream)
            return
        outgoing: list[bytes] = []
        for piece in self._requests.feed(data):
            if self._is_sent:
                # Another request, perhaps to another place: it waits for this one's answer.
                if not isinstance(piece, End):
                    self._next.append(piece.raw)
            elif isinstance(piece, End):
                self._is_sent = True
            else:
                outgoing.append(piece.raw)
                self._is_opaque = self._is_opaque or isinstance(piece, Opaque)
        if outgoing:
            self._forward(b"".join(outgoing), self.upstream)
        if self._is_opaque:
            self._stop_following()
        elif self._next or self._requests.has_partial_head:
            self.client.pause()

    def _from_upstream(self, data: bytes) -> None:
        if self._on_proxy_challenge is not None:
            data = self._first = self._first + data
            if len(data) < len(_CHALLENGE):
                return
            challenged, self._on_proxy_challenge, self._first = self._on_proxy_challenge, None, b""
            if _CHALLENGE.startswith(data[:7]) and data[8:13] == _CHALLENGE[8:]:
                challenged()
                self._forward(_NO_CREDENTIALS, self.client)
                self._end_with(self.client, linger=not self._is_sent)
                return
        self._forward(data, self.client)
        if self._is_opaque or self.client.is_closed:
            return
        pieces = self._responses.feed(data)
        for piece in pieces:
            match piece:
                case Head():
                    self._is_kept = self._is_kept and keeps_alive(piece.head)
                    self._is_upgraded = piece.head.status_code == 101
                case End():
                    # Bytes after the answer are an answer to nothing; the client's next request must not get them.
                    self._is_kept = self._is_kept and piece is pieces[-1]
                    self._finish()
                    return
                case Opaque():
                    # The rest goes on until the origin ends it. The client may see an end where we see none: what it sends then is
                    # a request to somebody else, with its credentials for us, and none of this origin's business.
                    self._is_kept = False
                case _:
                    pass

    def _finish(self) -> None:
        if self._is_upgraded:
            self._stop_following()
        else:
            self._end_with(self.client, linger=not self._is_sent)  # not whole: an early answer

    def _stop_following(self) -> None:
        self._is_opaque = True
        self._is_kept = False
        withheld = b"".join((*self._next, *(piece.raw for piece in self._requests.stop_following())))
        self._next.clear()
        if withheld:
            self._forward(withheld, self.upstream)
        if not self.upstream.has_unsent:
            self.client.resume()

    def _say_goodbye(self, stream: Stream) -> None:
        if stream is not self.client or not self._is_kept or not self._is_sent or not self._responses.is_idle:
            super()._say_goodbye(stream)
            return
        received = b"".join((*self._next, *(piece.raw for piece in self._requests.stop_following())))
        self.client.release()
        self.close("eof")
        self._on_done(received)

    def _resume(self, stream: Stream) -> None:
        if stream is self.upstream or self._is_opaque or not self._next:
            stream.resume()

    def _on_end(self, stream: Stream) -> None:
        if self._is_opaque:
            super()._on_end(stream)
        elif stream is self.client:
            # A client that ends its direction while it waits for an answer is taken to have left, as servers take it.
            self.close("eof")
        else:
            self._is_kept = False
            self._end_with(self.client, linger=not self._is_sent)
