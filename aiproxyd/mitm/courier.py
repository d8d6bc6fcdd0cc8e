"""One client's connection whose requests are carried one by one: each gets its route, maybe another head, and as many tries as keys.

For providers where something must change. Where nothing does, `relay` moves the bytes at a fraction of the cost. HTTP/1.1 alone; the
client's side is TLS of ours behind a CONNECT, or plain on the reverse listener.

A request's head is edited (`wire.http1_edit`), its body goes as it came, framing included; an answer goes as it came, from its first
byte to its last. How a request is tried is in `carrying`; here are the bytes of both sides, and every way in which it ends.

Facts: interim answers (1xx) are no answer. `100 Continue` is passed on once, however many tries there are.

Bias as in `relay`: a client that ends its direction has left, and the provider is told by the end of its connection.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable

from aiproxyd.mitm.carrying import Carrying
from aiproxyd.mitm.client_side import ClientSide
from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.decrypted import AbortedBy, Tap
from aiproxyd.mitm.egress import Egress
from aiproxyd.mitm.exchange import Exchange, Tried
from aiproxyd.mitm.leg import Destination, Leg
from aiproxyd.mitm.legs import Legs
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.route import Router
from aiproxyd.mitm.tls import UpstreamTls
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import ConnectionSecured, UnknownEventsSeen
from aiproxyd.provider_errors import Answer
from aiproxyd.wire.http1 import Data, End, Head, Interim, Opaque, RequestFollower, RequestPiece, ResponsePiece
from aiproxyd.wire.http1_head import keeps_alive, plain_answer, whole_answer

log = logging.getLogger(__name__)


class Courier:
    """One client's connection."""

    def __init__(
        self,
        client: socket.socket,
        router: Router,
        *,
        tap: Tap,
        reporter: Reporter,
        egress: Egress,
        upstream_tls: UpstreamTls,
        settings: RelaySettings,
        deadlines: Deadlines,
        on_closed: Callable[[str], None],
    ) -> None:
        """Take over a connected, non-blocking socket. Nothing moves before `secure` or `start`.

        Args:
            client: Towards the client.
            router: Finds the route of each request.
            tap: Looks at requests.
            reporter: Is told of TLS that fails, and knows the time.
            egress: Dials.
            upstream_tls: TLS towards providers.
            settings: Limits.
            deadlines: Of the loop.
            on_closed: Called once, with `eof`, `idle`, `error` or `drained`.
        """
        self.router = router
        self._loop = asyncio.get_running_loop()
        self._client = ClientSide(client, self, settings=settings, deadlines=deadlines, reporter=reporter)
        self._legs = Legs(self, egress=egress, tls=upstream_tls, settings=settings)
        self._carrying = Carrying(self, router, tap=tap, legs=self._legs, deadlines=deadlines, reporter=reporter)
        self._reporter = reporter
        self._on_closed: Callable[[str], None] | None = on_closed
        self._requests = RequestFollower(max_head_bytes=settings.max_head_bytes)
        self._pending: deque[RequestPiece] = deque()
        """What came of the client and has nowhere to go yet."""
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_opaque = False
        """Whether bytes go on unfollowed: after an upgrade, or behind an answer that is no HTTP any more."""
        self._is_ready = False
        self._sides_due = 2
        """Handshakes that are not done: the client's, and that of the connection that was adopted."""
        self._began_at = 0.0
        self._provider = ""
        self._is_draining = False

    @property
    def holder(self) -> str:
        """Whose the request is that is open (see `Principal`); empty when none is."""
        route = self._exchange.route if self._exchange is not None else None
        return route.connection.principal.holder if route is not None and route.connection is not None else ""

    # Life

    def adopt(self, upstream: socket.socket, destination: Destination) -> None:
        """Use a connection that stands already for the first request to `destination`."""
        self._legs.adopt(upstream, destination, self._side_secured)

    def secure(self, context: ssl.SSLContext, host: str, provider: str) -> None:
        """Begin TLS with the client as `host`, which is the provider's, and serve."""
        self._began_at = self._reporter.monotonic()
        self._provider = provider
        self._client.secure(context, host)

    def start(self) -> None:
        """Serve a client without TLS."""
        self._client.start()

    def drain(self) -> None:
        """Close when no request is open; the one that is open has until `close`."""
        self._is_draining = True
        self._end_if_drained()

    def close(self, reason: str = "drained", *, reset: bool = False) -> None:
        """Close everything at once. What is open ends as aborted by the proxy. May be called again."""
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is None:
            return
        self._abort(AbortedBy.PROXY, reason)
        if self._task is not None:
            self._task.cancel()
        self._pending.clear()
        self._legs.close(reset=reset)
        self._client.close(reset=reset)
        on_closed(reason)

    def _end_if_drained(self) -> None:
        if self._is_draining and self._is_ready and self._exchange is None and self._requests.is_idle and not self._pending:
            self._client.end()

    # From the client

    def client_ready(self) -> None:
        """See `ClientUser`."""
        self._is_ready = True
        self._side_secured()
        self._end_if_drained()

    def _side_secured(self) -> None:
        """Tell how long both handshakes took, when this was the second. A client of the reverse listener has none."""
        self._sides_due -= 1
        if not self._sides_due and self._provider:
            seconds = round(self._reporter.monotonic() - self._began_at, 6)
            self._reporter.tell(ConnectionSecured(at=self._reporter.now(), provider=self._provider, seconds=seconds))

    def from_client(self, data: bytes) -> None:
        """See `ClientUser`."""
        if self._is_opaque:
            self._pass_up(data)
            return
        self._pending.extend(self._requests.feed(data))
        self._client.watch_head(self._requests.has_partial_head)
        self.pump()

    def client_drained(self) -> None:
        """See `ClientUser`."""
        exchange = self._exchange
        if exchange is not None and exchange.leg is not None:
            exchange.leg.resume()

    def client_left(self, detail: str, reason: str) -> None:
        """See `ClientUser`."""
        self._abort(AbortedBy.CLIENT, detail)
        self.close(reason)

    def client_idle(self) -> None:
        """See `ClientUser`."""
        self._abort(AbortedBy.PROXY, "no byte passed within the idle timeout")
        self.close("idle")

    def head_too_slow(self) -> None:
        """See `ClientUser`."""
        self._say_last(plain_answer(408, "Request Timeout", "the request's head did not arrive in time", close=True))

    def limit_idle(self, seconds: float) -> None:
        """Let the connection be idle for so long while the request is open."""
        self._client.wait_for_bytes(seconds)

    def pump(self) -> None:
        """Let go on what the client sent, as far as somebody takes it. What nobody takes stays, and the client feels it."""
        pending = self._pending
        while pending and not self._client.is_ending:
            piece, exchange = pending[0], self._exchange
            if isinstance(piece, Opaque) and (exchange is None or not exchange.is_sent):
                self._cannot_follow(piece.reason)
                return
            if exchange is None:
                pending.popleft()
                if isinstance(piece, Head):
                    self._begin(piece)
            elif exchange.is_sent:
                if not isinstance(piece, Data):
                    break  # the next request
                pending.popleft()  # an empty line before it
            elif exchange.takes_body:
                pending.popleft()
                self._take(exchange, piece)
            else:
                break
        leg = self._exchange.leg if self._exchange is not None else None
        self._client.set_reading(not pending and not (leg is not None and leg.has_unsent))

    def _begin(self, piece: Head[RequestHead]) -> None:
        self._exchange = Exchange(piece.raw, piece.head)
        self._task = self._loop.create_task(self._carrying.carry(self._exchange))
        self._task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a connection is closed because its request could not be carried", exc_info=fault)
            self.close("error")

    def _take(self, exchange: Exchange, piece: RequestPiece) -> None:
        tap = exchange.tap
        if isinstance(piece, Data):
            exchange.keep(piece)
            if exchange.leg is not None:
                exchange.leg.write(piece.raw)
            if tap is not None:
                tap.request_data(piece.data)
        elif isinstance(piece, End):
            exchange.is_sent = True
            if tap is not None:
                tap.request_end()
            if exchange.refusal is not None:
                self._abort(*exchange.refusal)
            exchange.note_received()
            self._carrying.await_first_byte(exchange)
            self._finish_if_over(exchange)

    def _cannot_follow(self, reason: str) -> None:
        """End a connection whose requests cannot be told apart: a head that is to be edited must be understood."""
        self._count_unreadable(reason)
        if reason == "head_too_large":
            answer = plain_answer(431, "Request Header Fields Too Large", "the request's head is too large", close=True)
        else:
            answer = plain_answer(400, "Bad Request", f"the request cannot be read ({reason})", close=True)
        self._say_last(answer)

    def _count_unreadable(self, reason: str) -> None:
        route = self._exchange.route if self._exchange is not None else None
        provider = route.connection.provider.name if route is not None and route.connection is not None else ""
        self._reporter.tell(UnknownEventsSeen(at=self._reporter.now(), provider=provider, api="http1", counts={reason: 1}))

    # To the client

    def say(self, data: bytes) -> None:
        """Send the client bytes of an answer."""
        if not self._client.write(data) and self._exchange is not None and self._exchange.leg is not None:
            self._exchange.leg.pause()

    def answer(self, exchange: Exchange, answer: Answer, by: AbortedBy, detail: str, *, is_failure: bool = False) -> None:
        """Answer a request instead of the provider, of whose answer nothing was sent.

        Args:
            exchange: The request.
            answer: What to say.
            by: For the record: why there is no answer of the provider.
            detail: The same as a sentence.
            is_failure: Whether it is the provider's fault.
        """
        if exchange is not self._exchange or self._client.is_ending:
            return
        self._drop_leg(exchange)
        exchange.settle(None, is_failure=is_failure)
        exchange.forget_rest()
        exchange.answer = ResponseHead(answer.status_code, Headers())
        exchange.is_answered = True
        closes = not exchange.rest_is_small
        raw = whole_answer(
            answer.status_code, answer.headers, answer.body, has_body=exchange.head.method != "HEAD", close=closes
        )
        self.say(raw)
        exchange.refusal = (by, detail)
        if exchange.is_sent or closes:
            self._abort(by, detail)
        # Else when the request is whole: what is recorded of it stands in its body.
        if closes:
            self._client.end(linger=True)
        else:
            self._finish_if_over(exchange)
            self.pump()

    def _say_last(self, raw: bytes) -> None:
        """Say something of our own and end the connection; not into the middle of an answer."""
        exchange = self._exchange
        self._pending.clear()
        if exchange is None:
            self._client.write(raw)
            self._client.end(linger=True)
            return
        self._abort(AbortedBy.CLIENT, "the request cannot be read")
        if exchange.answer is None:
            self._drop_leg(exchange)
            self._client.write(raw)
            self._client.end(linger=True)
        else:
            self.close("error", reset=True)

    # From a provider

    def answered(self, leg: Leg, pieces: list[ResponsePiece]) -> None:
        """See `LegUser`."""
        exchange = self._exchange
        if exchange is None or exchange.leg is not leg:
            self._legs.drop(leg)  # it said what nobody had asked for
            return
        self._client.touch()
        came_at = self._reporter.monotonic() if exchange.answer is None else 0.0
        outgoing: list[bytes] = []
        seen: list[Head[ResponseHead] | Data | End | Opaque] = []
        refused: Tried | None = None
        unreadable = ""
        for piece in pieces:
            if isinstance(piece, Interim):
                if exchange.passes_on(piece):
                    outgoing.append(exchange.outgoing(piece))
                continue
            if isinstance(piece, Head):
                if self._carrying.wants_next_key(exchange, piece.head):
                    refused = Tried.NEXT_KEY
                    break
                exchange.accept(piece.head)
            elif isinstance(piece, Opaque) and exchange.answer is None:
                refused = Tried.UNREADABLE
                break
            elif isinstance(piece, Opaque) and exchange.is_withheld:
                unreadable = piece.reason
                break
            outgoing.append(exchange.outgoing(piece))
            seen.append(piece)
            if isinstance(piece, End) and not exchange.is_upgraded:
                break  # what comes behind an answer was not asked for, and is for nobody
        if data := b"".join(outgoing):
            self.say(data)
        if refused is not None:
            self._drop_leg(exchange)
            exchange.decide(refused)
        if came_at and exchange.answer is not None and exchange.tap is not None:
            exchange.tap.held(self._reporter.monotonic() - came_at)
        for piece in seen:
            self._see(exchange, piece)
        if unreadable:
            # Of what was withheld nothing can be shown: nobody knows where in it a key may stand.
            self._count_unreadable(unreadable)
            self._abort(AbortedBy.UPSTREAM, f"the answer cannot be followed: {unreadable}")
            self.close("error", reset=True)

    def _see(self, exchange: Exchange, piece: Head[ResponseHead] | Data | End | Opaque) -> None:
        tap = exchange.tap
        assert tap is not None
        match piece:
            case Head():
                tap.carried(exchange.attempts, exchange.hint, exchange.remark)
                tap.response_head(piece.head)
            case Data():
                tap.response_data(piece.data)
            case Opaque():
                self._stop_following(exchange, piece.reason)
                tap.upgraded_response_data(piece.raw)
            case End():
                tap.response_end()
                exchange.is_answered = True
                self._finish_if_over(exchange)

    def leg_drained(self, leg: Leg) -> None:
        """See `LegUser`."""
        self._client.touch()
        if self._exchange is not None and self._exchange.leg is leg:
            self.pump()

    def leg_ended(self, leg: Leg, error: OSError | None) -> None:
        """See `LegUser`."""
        exchange = self._exchange
        if exchange is None or exchange.leg is not leg:
            self._legs.drop(leg)
            return
        ends_answer = error is None and leg.ends_answer()
        is_ragged = leg.is_ragged
        self._drop_leg(exchange)
        tap = exchange.tap
        if exchange.answer is None:
            is_stale = leg.is_used and not leg.has_said and exchange.body.is_whole
            exchange.decide(Tried.STALE if is_stale else Tried.ENDED)
            return
        if self._is_opaque:
            self._abort(AbortedBy.UPSTREAM, "the provider closed the connection")
        elif ends_answer and tap is not None:
            if exchange.is_withheld:
                self.say(exchange.outgoing(End()))
            tap.response_end()
        elif not exchange.is_answered:
            what = "broke" if error is not None else "was closed"
            self._abort(AbortedBy.UPSTREAM, f"the connection to the provider {what} before its answer was whole")
        self._client.end(linger=not exchange.is_sent, ragged=is_ragged)

    def leg_failed(self, leg: Leg) -> None:  # noqa: ARG002
        """See `LegUser`."""
        self.close("error")

    def _drop_leg(self, exchange: Exchange) -> None:
        leg, exchange.leg = exchange.leg, None
        if leg is not None:
            self._legs.drop(leg)

    # Ends

    def _finish_if_over(self, exchange: Exchange) -> None:
        """Go on with the next request when this one and its answer are whole."""
        answer, leg = exchange.answer, exchange.leg
        if not exchange.is_answered or answer is None or exchange.is_upgraded:
            return
        if not exchange.is_sent:
            if not keeps_alive(answer):
                self._client.end(linger=True)
            return
        exchange.leg = None
        if leg is not None:
            if leg.is_between and not leg.has_unsent and keeps_alive(answer) and keeps_alive(exchange.head):
                self._legs.keep(leg)
            else:
                self._legs.drop(leg)
        self._exchange = None
        if not keeps_alive(answer) or not keeps_alive(exchange.head):
            self._client.end()
            return
        self._client.wait_for_bytes(None)
        self._end_if_drained()
        # Not from here: the pieces of this answer may not all have been looked at.
        self._loop.call_soon(self.pump)

    def _stop_following(self, exchange: Exchange, reason: str) -> None:
        """Let bytes go on without looking for HTTP in them.

        Args:
            exchange: Whose answer is under way.
            reason: Why HTTP cannot be followed; empty after an upgrade, where it ended.
        """
        if self._is_opaque:
            return
        self._is_opaque = True
        tap, leg = exchange.tap, exchange.leg
        withheld = [piece.raw for piece in (*self._pending, *self._requests.stop_following())]
        self._pending.clear()
        self._client.watch_head(False)
        if leg is not None:
            leg.stop_following()
        if reason:
            self._count_unreadable(reason)
            if tap is not None:
                tap.lose_sight(f"HTTP cannot be followed: {reason}")
        if data := b"".join(withheld):
            self._pass_up(data)
        self.pump()

    def _pass_up(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.leg is None:
            return
        if exchange.tap is not None:
            # Before it leaves: what it begins is on disk when this returns.
            exchange.tap.upgraded_request_data(data)
        if not exchange.leg.write(data):
            self._client.set_reading(False)

    def _abort(self, by: AbortedBy, detail: str) -> None:
        """Tell the end of what is open."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.settle(None)
        if exchange.refusal is not None:
            by, detail = exchange.refusal  # whatever happened since
        status_code = exchange.answer.status_code if exchange.refusal is not None and exchange.answer is not None else 0
        if exchange.tap is not None:
            exchange.tap.carried(exchange.attempts, exchange.hint, exchange.remark)
            exchange.tap.abort(by, detail, status_code=status_code)
            exchange.tap.upgraded_end(by, detail)
