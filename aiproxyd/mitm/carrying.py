"""How a courier brings one request to the point where its answer flows: route, key, breaker, connection, and again with the next key.

One coroutine a request. It moves no body: what the client sends flows through the courier as soon as there is somebody to take it.
"""

import logging
from typing import Protocol

from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.decrypted import AbortedBy, RequestTap, Tap
from aiproxyd.mitm.exchange import CONTINUE, Exchange, Tried
from aiproxyd.mitm.kept_body import KeptBody
from aiproxyd.mitm.leg import Leg, LegFailed
from aiproxyd.mitm.legs import Legs
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.route import Refusal, Route, Router
from aiproxyd.mitm.tap import unseen
from aiproxyd.model.head import ResponseHead
from aiproxyd.model.observation import UpstreamTlsFailed
from aiproxyd.provider_errors import Answer
from aiproxyd.wire.http1_edit import edited
from aiproxyd.wire.http1_head import has_proxy_fields, without_proxy_fields

log = logging.getLogger(__name__)

TOO_LARGE_TO_REPEAT = "not sent again with another key: the body is larger than retry_body_max_bytes"


class Carrier(Protocol):
    """Who has the bytes: `courier.Courier`."""

    def pump(self) -> None:
        """Let go on what the client sent."""

    def say(self, data: bytes) -> None:
        """Send the client bytes of an answer."""

    def answer(self, exchange: Exchange, answer: Answer, by: AbortedBy, detail: str, *, is_failure: bool = False) -> None:
        """Answer instead of the provider."""

    def limit_idle(self, seconds: float) -> None:
        """Let the connection be idle for so long while the request is open."""


class Carrying:
    """Carries the requests of one courier, one after the other."""

    def __init__(
        self, carrier: Carrier, router: Router, *, tap: Tap, legs: Legs, deadlines: Deadlines, reporter: Reporter
    ) -> None:
        self._carrier = carrier
        self._router = router
        self._tap = tap
        self._legs = legs
        self._deadlines = deadlines
        self._reporter = reporter

    async def carry(self, exchange: Exchange) -> None:
        """Return when the answer flows, or was given by us."""
        routed = await self._router.route(exchange.head)
        if isinstance(routed, Refusal):
            exchange.tap = self._open(routed)
            self._carrier.answer(exchange, routed.answer, AbortedBy.REFUSED, routed.reason)
            return
        exchange.route = route = routed
        exchange.screen = route.screen
        exhausted = route.next_key()
        exchange.body = KeptBody(route.rules.retry_body_max_bytes, keeps_data=route.needs_body)
        # Before anything of it leaves: what it begins is on disk when this returns.
        exchange.tap = tap = self._open(route)
        if route.rules.idle_timeout_seconds is not None:
            self._carrier.limit_idle(route.rules.idle_timeout_seconds)
        if exhausted is not None:
            self._no_key(exchange, exhausted)
            return
        if route.needs_body and not await self._collect(exchange, route):
            return
        refused = route.admit(tap.request_model)
        if refused is not None:
            self._carrier.answer(exchange, refused, AbortedBy.REFUSED, "the circuit breaker is open")
            return
        await self._try(exchange, route)

    def wants_next_key(self, exchange: Exchange, head: ResponseHead) -> bool:
        """Return whether an answer's head is not for the client, because another key may get a better one."""
        route = exchange.route
        if route is None or exchange.answer is not None or not route.answered(head):
            return False
        if exchange.body.is_whole:
            return True
        exchange.remark = TOO_LARGE_TO_REPEAT
        return False

    def await_first_byte(self, exchange: Exchange) -> None:
        """Give the provider its time, when it has the whole request."""
        route, leg = exchange.route, exchange.leg
        seconds = route.rules.first_byte_timeout_seconds if route is not None else None
        if seconds is not None and leg is not None and exchange.is_sent and exchange.is_undecided:
            self._deadlines.start(seconds, lambda: self._no_first_byte(exchange, leg))

    def _no_first_byte(self, exchange: Exchange, leg: Leg) -> None:
        if exchange.leg is leg and not leg.has_said:
            exchange.leg = None
            self._legs.drop(leg)
            exchange.decide(Tried.SILENT)

    def _open(self, routed: Route | Refusal) -> RequestTap:
        connection = routed.connection
        if connection is None:
            return unseen()
        return self._tap.open(connection, routed.seen)

    async def _collect(self, exchange: Exchange, route: Route) -> bool:
        """Wait for the whole body; return whether the request can be carried."""
        if exchange.expects_continue:
            exchange.said_continue = True
            self._carrier.say(CONTINUE)
        self._carrier.pump()
        await exchange.received.wait()
        if exchange.body.is_whole or not route.is_signed:
            return True
        sentence = "the request is larger than retry_body_max_bytes, and one that is signed must be known whole"
        self._carrier.answer(exchange, route.error(413, sentence), AbortedBy.REFUSED, sentence)
        return False

    async def _try(self, exchange: Exchange, route: Route) -> None:
        is_repeated = False
        while True:
            try:
                leg = await self._legs.take(
                    route.destination, timeout_seconds=route.rules.connect_timeout_seconds, fresh=is_repeated
                )
            except LegFailed as exc:
                self._unreachable(exchange, route, exc)
                return
            try:
                tried = await self._send(exchange, route, leg)
            except AiproxydError as exc:
                self._legs.drop(leg)
                log.error("a request cannot be signed: %s", exc)
                answer = route.error(502, "the request cannot be signed; ask whoever runs the proxy")
                self._carrier.answer(exchange, answer, AbortedBy.REFUSED, str(exc))
                return
            match tried:
                case Tried.ANSWERED:
                    return
                case Tried.NEXT_KEY:
                    exhausted = route.next_key()
                    if exhausted is not None:
                        self._no_key(exchange, exhausted)
                        return
                case Tried.STALE if not is_repeated:
                    is_repeated = True
                    exchange.attempts -= 1
                case _:
                    self._unanswered(exchange, route, tried)
                    return

    async def _send(self, exchange: Exchange, route: Route, leg: Leg) -> Tried:
        raw = without_proxy_fields(exchange.raw) if has_proxy_fields(exchange.raw) else exchange.raw
        raw = edited(raw, route.edits(exchange.head, exchange.body))
        verdict = exchange.try_with(leg)
        leg.begin(exchange.head)
        # In one write, so that a small request is one TLS record.
        leg.write(b"".join((raw, *exchange.body.raw)))
        if not exchange.body.is_whole:
            exchange.body.drop()
        self.await_first_byte(exchange)
        self._carrier.pump()
        return await verdict

    def _no_key(self, exchange: Exchange, exhausted: Answer) -> None:
        sentence = (
            "no key of the provider can be used now" if exhausted.status_code == 429 else "no key of the provider is accepted"
        )
        self._carrier.answer(exchange, exhausted, AbortedBy.NO_KEY, sentence)

    def _unreachable(self, exchange: Exchange, route: Route, exc: LegFailed) -> None:
        if exc.tls_reason and route.connection is not None:
            self._reporter.tell(
                UpstreamTlsFailed(
                    at=self._reporter.now(),
                    host=route.destination.authority.host,
                    provider=route.connection.provider.name,
                    reason=exc.tls_reason,
                    detail=exc.detail,
                )
            )
        answer = route.error(exc.status_code, exc.sentence)
        self._carrier.answer(exchange, answer, AbortedBy.UNREACHABLE, exc.sentence, is_failure=True)

    def _unanswered(self, exchange: Exchange, route: Route, tried: Tried) -> None:
        host = route.destination.authority.host
        status_code, sentence = 502, f"{host} closed the connection before it answered"
        if tried is Tried.SILENT:
            status_code, sentence = 504, f"{host} did not answer in time"
        elif tried is Tried.UNREADABLE:
            sentence = f"{host} answered with what cannot be read as HTTP"
        self._carrier.answer(exchange, route.error(status_code, sentence), AbortedBy.UPSTREAM, sentence, is_failure=True)
