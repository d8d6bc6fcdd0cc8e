"""A decrypted connection: TLS with the client, TLS with the provider, and between them the bytes exactly as they came.

HTTP/1.1 is followed for our own knowledge only (`wire.http1`), and what is seen is fed to the tap: a request's head before its
first byte leaves, everything else after it was forwarded. Each is done for all connections together (`turns`). What cannot be
followed goes on unfollowed, is counted, and the requests that were open end as not understood. HTTP/2 is not carried here.

Only fields of request heads are ever taken away: `Proxy-*`, and those that are meant for this proxy by name. Only three things are ever said that the provider did
not say: 502 when TLS with it failed, 408 and 431 when a head takes too long or too much.

Measured like the tunnel, without a tap, CPU of the proxy: a request on a kept-alive connection 0.05 ms (32 connections) to 0.10 ms
(one), a new connection with both handshakes and one request 1.2-1.4 ms, 1.1 ms a MB, 60 KiB an idle connection.

Bias: a client that ends its direction while it waits for an answer is taken to have left, as servers take it, and the provider
is told at once by the end of its connection: generating for nobody costs money. After an upgrade each end ends both.
"""

import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable

import msgspec

from aiproxyd.credentials import without_query_key, without_token
from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.mitm.decrypted import AbortedBy, DecryptedConnection, RequestTap, Tap
from aiproxyd.mitm.gathering import Gathering
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.secured_pair import SecuredPair
from aiproxyd.mitm.stream import Stream
from aiproxyd.mitm.turns import Turns
from aiproxyd.model.head import RequestHead
from aiproxyd.model.observation import UnknownEventsSeen
from aiproxyd.wire.http1 import Data, End, Head, Opaque, RequestFollower, ResponseFollower
from aiproxyd.wire.http1_edit import HeadEdits, edited
from aiproxyd.wire.http1_head import has_proxy_fields, plain_answer, without_fields, without_proxy_fields

# Requests that wait for their answers on one connection; more are left in the kernel. Clients that pipeline at all send a few.
MAX_PIPELINED = 32


class _Outgoing(msgspec.Struct):
    """What arrived from the client and was followed."""

    raw: list[bytes]
    """As it is to go on."""
    begun: list[RequestTap]
    """The requests that begin in it."""
    seen: list[tuple[RequestTap, Data | End]]
    """What their taps are to be told when it has left."""
    reason: str | None = None
    """Why what comes next cannot be followed, if it cannot."""


class Relay(SecuredPair):
    """One client's connection to one provider."""

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        connection: DecryptedConnection,
        *,
        tap: Tap,
        reporter: Reporter,
        settings: RelaySettings,
        deadlines: Deadlines,
        turns: Turns,
        on_closed: Callable[[str], None],
    ) -> None:
        """Take over two connected, non-blocking sockets. See `Pair`."""
        super().__init__(
            client, upstream, connection, reporter=reporter, settings=settings, deadlines=deadlines, on_closed=on_closed
        )
        self._token = connection.token.encode("latin-1", "replace")
        self._tap = tap
        self._turns = turns
        self._is_in_turn = False
        """Whether steps of this turn are to come. What the client does next, and any end, comes behind them."""
        self._arrived = b""
        """What the client said in this turn: not followed yet, and not forwarded."""
        self._arrived_at = 0.0
        """When it came, by the clock of durations."""
        self._outgoing: _Outgoing | None = None
        self._seen: list[tuple[RequestTap, Data | End]] = []
        """What taps are to be told of requests that left in this turn."""
        self._requests = RequestFollower(max_head_bytes=settings.max_head_bytes)
        self._responses = ResponseFollower(max_head_bytes=settings.max_head_bytes)
        self._unfollowed = Gathering(deadlines, functools.partial(self.upstream.guard, self._follow_response))
        """What the provider said in this turn, or in the middle of a stream: forwarded, and not followed yet."""
        self._came_at: float | None = None
        """When the last of it came; None in the middle of a stream, where nothing depends on it."""
        self._is_midstream = False
        """Whether the next bytes of the provider may be gathered there. Else nothing is."""
        self._open: deque[RequestTap] = deque()
        """Requests whose answer is not whole, oldest first."""
        self._uploading: RequestTap | None = None
        """The request whose body is not whole."""
        self._upgraded: RequestTap | None = None
        """Who looks at what follows a 101, if anybody does."""
        self._is_answer_due = False
        """Whether a request left since the last bytes came from the provider."""
        self._is_opaque = False
        self._is_draining = False
        self._is_session_kept = False
        self._head_deadline: Deadline | None = None

    def start(self) -> None:
        """See `Pair.start`."""
        super().start()
        self._leave_if_drained()

    def drain(self) -> None:
        """Close when no request is open; requests that are open have until `close`."""
        self._is_draining = True
        if self._is_in_turn:
            self.client.guard(self._catch_up)
        self._leave_if_drained()

    def close(self, reason: str = "drained", *, reset: bool = False) -> None:
        """See `Pair.close`. What was open ends as aborted by the proxy."""
        if self._head_deadline is not None:
            self._head_deadline.cancel()
        self._arrived = b""  # as if it had not come: nobody was told of it
        self._outgoing = None
        self._abort(AbortedBy.PROXY, reason)
        self._unfollowed.close()
        super().close(reason, reset=reset)

    # From the client

    def _from_client(self, data: bytes) -> None:
        if (self._is_in_turn or self._is_midstream) and not self._catch_up():
            return
        if self._is_opaque:
            if self._upgraded is not None:
                # Before it leaves: what it begins is on disk when this returns.
                self._upgraded.upgraded_request_data(data)
            self._forward(data, self.upstream)
            return
        if self._refusal:
            pieces = self._requests.feed(data)
            self._refuse(pieces[0] if pieces else None)
            return
        self._arrived = data
        self._arrived_at = self._reporter.monotonic()
        self._join_turn()

    def open_requests(self) -> None:
        """See `turns.Part`."""
        data, self._arrived = self._arrived, b""
        if not data:
            return
        raw: list[bytes] = []
        begun: list[RequestTap] = []
        seen: list[tuple[RequestTap, Data | End]] = []
        reason: str | None = None
        tap = self._uploading
        for piece in self._requests.feed(data):
            match piece:
                case Head():
                    # Before its first byte leaves: its journal line is on disk when this step is done.
                    tap = self._tap.open(self.connection, piece.head, self._arrived_at)
                    begun.append(tap)
                    self._open.append(tap)
                    self._responses.expect(piece.head)
                    self._is_answer_due = True
                    raw.append(self._head_to_send(piece))
                case Data():
                    raw.append(piece.raw)
                    if tap is not None:
                        seen.append((tap, piece))
                case End():
                    if tap is not None:
                        seen.append((tap, piece))
                    tap = None
                case Opaque():
                    raw.append(piece.raw)
                    reason = reason or piece.reason
        self._uploading = tap
        self._outgoing = _Outgoing(raw, begun, seen, reason)

    def send_requests(self) -> None:
        """See `turns.Part`."""
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is None:
            return
        raw, reason = outgoing.raw, outgoing.reason
        if reason == "head_too_large":
            self._answer(plain_answer(431, "Request Header Fields Too Large", "the request's head is too large", close=True))
            return
        if raw:
            self._forward(raw[0] if len(raw) == 1 else b"".join(raw), self.upstream)
        for tap in outgoing.begun:
            tap.held(self._reporter.monotonic() - self._arrived_at)
        self._seen = outgoing.seen
        if reason is not None:
            self._look_at_requests()
            self._stop_following(reason)
        elif len(self._open) >= MAX_PIPELINED:
            self.client.pause()
        self._watch_head()

    def _look_at_requests(self) -> None:
        seen, self._seen = self._seen, []
        for tap, piece in seen:
            if isinstance(piece, Data):
                tap.request_data(piece.data)
            else:
                tap.request_end()

    def _head_to_send(self, piece: Head[RequestHead]) -> bytes:
        raw = piece.raw
        if has_proxy_fields(raw):
            raw = without_proxy_fields(raw)
        own = self._settings.own_headers
        raw = without_fields(raw, own) if piece.head.headers.has_any(own) else raw
        # Rare, and the search is cheap: the client's credential of this proxy in the place of one of the provider's.
        return self._without_token(raw, piece.head) if self._token and self._token in raw else raw

    def _without_token(self, raw: bytes, head: RequestHead) -> bytes:
        edit = without_token(head, self.connection.token)
        target = raw.split(b" ", 2)[1].decode("latin-1")
        return edited(raw, HeadEdits(target=without_query_key(target) if edit.removes_query_key else "", removed=edit.remove))

    def _watch_head(self) -> None:
        if self._requests.has_partial_head:
            if self._head_deadline is None:
                self._head_deadline = self._deadlines.start(self._settings.head_timeout_seconds, self._head_too_slow)
        elif self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _head_too_slow(self) -> None:
        if self._is_in_turn:
            self.client.guard(self._catch_up)
        if self.client.is_closed or not self._requests.has_partial_head:
            return  # the rest came in the last moment
        self._head_deadline = None
        self._answer(plain_answer(408, "Request Timeout", "the request's head did not arrive in time", close=True))

    def _refuse(self, piece: Head[RequestHead] | Data | End | Opaque | None) -> None:
        """Answer the first request, which has no provider to go to."""
        match piece:
            case None:
                self._watch_head()
            case Head():
                tap = self._tap.open(self.connection, piece.head)
                tap.request_end()
                tap.abort(AbortedBy.UNREACHABLE, self._refusal)
                self._answer(plain_answer(502, "Bad Gateway", self._refusal, close=True))
            case _:
                self.close("error")

    def _answer(self, answer: bytes) -> None:
        """Say something of our own and end the connection; not into the middle of another answer."""
        if self._open:
            self.close("error", reset=True)
            return
        self._forward(answer, self.client)
        self._end_with(self.client, linger=True)

    # From the provider

    def _from_upstream(self, data: bytes) -> None:
        # A chunked message ends with an empty line. Should that come in pieces, it is found a little later.
        if self._is_midstream and not data.endswith(b"\r\n\r\n"):
            self._forward(data, self.client)
            if not self.client.is_closed:
                self._came_at = None
                self._unfollowed.add(data)
            return
        self._came_at = came_at = self._reporter.monotonic()
        self._forward(data, self.client)
        if self._is_answer_due:
            self._is_answer_due = False
            if self._open:
                self._open[0].held(self._reporter.monotonic() - came_at)
        if not self._is_session_kept:
            self._is_session_kept = True
            if self._upstream_tls is not None and isinstance(self.upstream.socket, ssl.SSLSocket):
                self._upstream_tls.remember(self.connection.authority, self.upstream.socket)
        if self._is_opaque:
            if self._upgraded is not None:
                self._upgraded.upgraded_response_data(data)
            return
        if self.client.is_closed:
            return
        self._unfollowed.append(data)
        self._join_turn()

    def look(self) -> None:
        """See `turns.Part`."""
        self._is_in_turn = False
        if self._seen:
            self._look_at_requests()
        self._unfollowed.look()

    def _join_turn(self) -> None:
        if not self._is_in_turn:
            self._is_in_turn = True
            self._turns.join(self)

    def _catch_up(self) -> bool:
        """Do what waits for the end of the turn, or for more of a stream, and return whether the connection goes on."""
        if self._is_in_turn:
            self.open_requests()
            self.send_requests()
        if self._is_in_turn or self._is_midstream:
            self.look()
            self._is_midstream = False
        return not self.client.is_closed and self._last_words is None

    def failed(self, fault: Exception) -> None:
        """See `turns.Part`."""
        self.client.fail(fault)

    def _follow_response(self, data: bytes) -> None:
        at = self._came_at
        upgraded: RequestTap | None = None
        for piece in self._responses.feed(data):
            match piece:
                case Data():
                    self._open[0].response_data(piece.data, at)
                case Head():
                    self._open[0].response_head(piece.head, at)
                    if piece.head.status_code == 101 and self._open[0].is_upgraded:
                        upgraded = self._open[0]
                case End():
                    self._open.popleft().response_end(at)
                case Opaque():
                    self._upgraded = upgraded
                    self._stop_following(piece.reason)
                    if upgraded is not None:
                        upgraded.upgraded_response_data(piece.raw)
                case _:
                    pass  # a 1xx is the client's business
        self._is_midstream = self._responses.is_in_chunks and len(self._open) == 1 and self._open[0].is_midstream
        if len(self._open) < MAX_PIPELINED and self.client.is_paused:
            self._resume(self.client)
        self._leave_if_drained()

    def _stop_following(self, reason: str) -> None:
        """Forward without looking from here on.

        Args:
            reason: Why HTTP cannot be followed; empty after an upgrade, where it ended.
        """
        if self._is_opaque:
            return
        self._is_opaque = True
        for piece in self._requests.stop_following():
            if self._upgraded is not None:
                self._upgraded.upgraded_request_data(piece.raw)
            self._forward(piece.raw, self.upstream)
        self._responses.stop_following()
        self._watch_head()
        if reason:
            self._reporter.tell(
                UnknownEventsSeen(
                    at=self._reporter.now(), provider=self.connection.provider.name, api="http1", counts={reason: 1}
                )
            )
        while self._open:
            self._open.popleft().lose_sight(f"HTTP cannot be followed: {reason}")

    # Ends

    def _resume(self, stream: Stream) -> None:
        # A full pipeline is a reason of its own to leave requests in the kernel.
        if stream is self.upstream or (len(self._open) < MAX_PIPELINED and not self.upstream.has_unsent):
            stream.resume()

    def _on_end(self, stream: Stream) -> None:
        if self._is_in_turn and not self._catch_up():
            return
        if self._is_opaque:
            if self._upgraded is not None:
                by = AbortedBy.CLIENT if stream is self.client else AbortedBy.UPSTREAM
                self._upgraded.upgraded_end(by, "the connection was closed")
            self._end_with(self._other(stream))
        elif stream is self.client:
            if self._open or self._uploading is not None:
                self._abort(AbortedBy.CLIENT, "the client closed the connection")
                self.close("eof")
            else:
                self._end_with(self.upstream)
        else:
            for _ in self._responses.close():
                self._open.popleft().response_end()
            self._abort(AbortedBy.UPSTREAM, "the provider closed the connection before its answer was whole")
            self._end_with(self.client, linger=self._uploading is not None)

    def _lost(self, stream: Stream, error: OSError) -> None:
        if self._is_in_turn:
            self._catch_up()
        if stream is self.client:
            self._abort(AbortedBy.CLIENT, "the client reset the connection")
            self.close("error")
            return
        self._abort(AbortedBy.UPSTREAM, f"the connection to the provider broke: {error.strerror or error}")
        # What came before is delivered; then the client sees a cut connection, as it would have seen.
        self.upstream.is_ragged = True
        self._end_with(self.client)

    def unwritable(self, stream: Stream, error: OSError) -> None:
        """See `Owner`."""
        if stream is self.client:
            self._lost(stream, error)
        else:
            # An early answer may be waiting behind the reset. Reading brings it, and then the error.
            stream.resume()
            self._loop.call_soon(stream.on_readable)

    def _on_idle(self) -> None:
        self._abort(AbortedBy.PROXY, "no byte passed within the idle timeout")
        super()._on_idle()

    def _leave_if_drained(self) -> None:
        if not self._is_draining:
            return
        is_between = self._is_client_secure and self._is_upstream_secure and not self._is_opaque and not self._open
        if is_between and self._requests.is_idle and self._last_words is None:
            self._end_with(self.client)

    def _abort(self, by: AbortedBy, detail: str) -> None:
        self.look()
        while self._open:
            self._open.popleft().abort(by, detail)
        if self._upgraded is not None:
            self._upgraded.upgraded_end(by, detail)
