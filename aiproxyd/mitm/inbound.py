"""A client's connection from its head to what becomes of it: a tunnel, a relay, a plain exchange, or a refusal.

Strategy: exactly the head is taken from the socket (`peeked_head`); where it came with the connection, nothing is watched for it.
A connection that waits for a head holds no task; from a head to its answer it has one.

A refusal keeps the connection when it can, because clients repeat their CONNECT on it, with credentials.
"""

import logging
import socket
from typing import TYPE_CHECKING, NamedTuple

from aiproxyd.classify import ProviderStatus
from aiproxyd.exceptions import CertificateError, MalformedBody
from aiproxyd.mitm.connect import token_of
from aiproxyd.mitm.deadlines import Deadline
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.egress import AddressBlocked
from aiproxyd.mitm.forward import PlainExchange
from aiproxyd.mitm.leg import Destination
from aiproxyd.mitm.pair import LINGER_SECONDS
from aiproxyd.mitm.peeked_head import take_head
from aiproxyd.mitm.relay import Relay
from aiproxyd.mitm.routers import ConnectRouter, destination_of
from aiproxyd.mitm.upstream_proxy import DialFailed, UpstreamProxy
from aiproxyd.model.authority import Authority
from aiproxyd.model.head import RequestHead
from aiproxyd.model.observation import ConnectDecided
from aiproxyd.model.principal import ANONYMOUS
from aiproxyd.model.verdict import Action, Verdict
from aiproxyd.wire.http1_head import (
    authority_of,
    for_origin,
    for_proxy,
    parse_request,
    plain_answer,
    request_length,
    without_fields,
)

if TYPE_CHECKING:  # the two know each other
    from aiproxyd.mitm.front import Decision, Front

log = logging.getLogger(__name__)

_DISCARD_BYTES = 16384
_TLS_HANDSHAKE = b"\x16"

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class _Request(NamedTuple):
    """What a client asks for."""

    raw: bytes
    """Its head as it came."""
    head: RequestHead
    target: str
    """As it was written."""
    received: bytes
    """What was read after the head."""


class Inbound:
    """A client's connection while it is ours to answer."""

    __slots__ = ("_client", "_connection", "_deadline", "_fileno", "_front", "_head", "_is_closed", "_is_waiting")

    def __init__(self, connection: socket.socket, client: tuple[str, int], front: "Front") -> None:
        self._connection = connection
        self._fileno = connection.fileno()
        self._client = client
        self._front = front
        self._head = bytearray()
        self._deadline: Deadline | None = None
        self._is_waiting = False
        self._is_closed = False

    # Life

    def begin(self, received: bytes = b"") -> None:
        """Look for a request, which mostly came with the connection, or wait for it; `received` was read of it already."""
        if received:
            self.await_head(received)
        elif self._look():
            self._wait()

    def await_head(self, received: bytes = b"") -> None:
        """Wait for another request.

        Args:
            received: What came of it already.
        """
        if self._front.is_draining:
            self.close()
            return
        self._head.clear()
        self._wait()
        if received:
            self._take(received)

    def _wait(self) -> None:
        front = self._front
        self._is_waiting = True
        self._deadline = front.deadlines.start(front.settings.head_timeout_seconds, self._head_too_slow)
        front.loop.add_reader(self._fileno, self._readable)

    def drain(self) -> None:
        """Close if no request was begun."""
        if self._is_waiting and not self._head:
            self.close()

    def close(self) -> None:
        """Close the connection. May be called again."""
        if self._is_closed:
            return
        self._leave()
        self._connection.close()

    def _leave(self) -> socket.socket:
        """Let go of the socket."""
        self._is_closed = True
        self._stop_waiting()
        self._front.forget(self)
        return self._connection

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._front.loop.remove_reader(self._fileno)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # The head

    def _readable(self) -> None:
        if self._is_waiting:
            self._look()

    def _look(self) -> bool:
        """Take what came of a head; return whether there is more to wait for."""
        head = self._head
        try:
            is_whole = take_head(self._connection, head, skips_empty_lines=True)
        except (BlockingIOError, InterruptedError):
            return True
        except (OSError, EOFError):
            self.close()
            return False
        if head.startswith(_TLS_HANDSHAKE):
            # A client that speaks TLS to a proxy that does not: no answer of ours would be understood.
            log.debug("a client spoke TLS to the proxy itself; its proxy setting should begin with http://")
            self.close()
        elif is_whole:
            self._complete(bytes(head))
        elif len(head) > self._front.settings.max_head_bytes:
            self._head_too_large()
        else:
            return True
        return False

    def _take(self, received: bytes) -> None:
        """Begin with bytes that are not in the socket any more."""
        received = received.lstrip(b"\r\n")
        end = received.find(b"\r\n\r\n")
        if end < 0:
            self._head += received
            return
        self._complete(received[: end + 4], received[end + 4 :])

    def _complete(self, raw: bytes, received: bytes = b"") -> None:
        self._stop_waiting()
        if len(raw) > self._front.settings.max_head_bytes:
            self._head_too_large()
            return
        self._front.supervise(self._serve(raw, received))

    def _head_too_slow(self) -> None:
        if self._head:
            self._say_last(plain_answer(408, "Request Timeout", "the request's head did not arrive in time", close=True))
        else:
            self.close()

    def _head_too_large(self) -> None:
        self._say_last(plain_answer(431, "Request Header Fields Too Large", "the request's head is too large", close=True))

    # The answer

    async def _serve(self, raw: bytes, received: bytes) -> None:
        try:
            await self._answer(raw, received)
        except BaseException:
            # The task's supervisor logs what it was; a client is never left waiting.
            self.close()
            raise

    async def _answer(self, raw: bytes, received: bytes) -> None:
        try:
            head, target = parse_request(raw)
            text = target if head.method == "CONNECT" else authority_of(target)
            if head.method == "CONNECT" and (request_length(head) != 0 or received):
                # Bytes behind a CONNECT are still in the socket, unless it came behind a plain request: nobody does that.
                raise MalformedBody("a CONNECT has no body and waits for what came before it")
        except MalformedBody as exc:
            self._say_last(plain_answer(400, "Bad Request", str(exc), close=True))
            return
        request = _Request(raw, head, target, received)
        reporter = self._front.reporter
        started = reporter.monotonic()
        revocations = self._front.revocations
        decision = await self._front.engine.decide(text, head.headers, self._client, method=head.method)
        decide_seconds = reporter.monotonic() - started
        verdict = decision.verdict
        if verdict.action is Action.REFUSE or decision.authority is None or decision.response is not None:
            self._refuse(request, decision, decide_seconds)
            return
        authority = decision.authority
        dialled = reporter.monotonic()
        proxy = None
        destination = self._destination(verdict.provider if verdict.action is Action.DECRYPT else "", authority)
        try:
            if head.method == "CONNECT":
                upstream = await self._front.egress.dial(
                    destination.authority, exempt=destination.is_exempt, decrypts=verdict.action is Action.DECRYPT
                )
            else:
                upstream, proxy = await self._front.egress.dial_plain(authority)
        except AddressBlocked:
            sentence = (
                f"{authority.host} is at a private or reserved address; ask the operator for egress.allowed_private_cidrs"
            )
            answer = plain_answer(403, "Forbidden", sentence)
            self._tell(verdict, authority, 403, decide_seconds, reason="address")
            self._turn_away(request, answer)
            return
        except DialFailed as exc:
            if exc.reason == "resolve":
                sentence = f"{authority.host} cannot be resolved from this proxy"
            elif exc.reason == "upstream_proxy_refused":
                sentence = f"the proxy behind this one does not connect to {authority}"
            else:
                sentence = f"{authority} cannot be reached from this proxy"
            answer = plain_answer(502, "Bad Gateway", sentence)
            dial_seconds = reporter.monotonic() - dialled
            self._tell(verdict, authority, 502, decide_seconds, dial_seconds, reason=f"dial_{exc.reason}")
            self._turn_away(request, answer)
            return
        if self._front.was_revoked(_holder(verdict), since=revocations):
            # While we dialled. Another try is decided anew.
            upstream.close()
            self._tell(verdict, authority, 503, decide_seconds, reporter.monotonic() - dialled, reason="revocation")
            self._turn_away(request, plain_answer(503, "Service Unavailable", "the user has just changed; try again"))
            return
        try:
            self._tell(verdict, authority, 200, decide_seconds, reporter.monotonic() - dialled)
            if head.method != "CONNECT" and not self._is_closed:
                self._exchange(request, authority, upstream, proxy, holder=_holder(verdict))
            else:
                self._connect(request, verdict, destination, authority, upstream)
        except BaseException:
            upstream.close()
            raise

    def _destination(self, provider: str, authority: Authority) -> Destination:
        """Return where to connect to: what the client named, unless the provider that is decrypted has a gateway before it."""
        named = Destination(authority)
        return destination_of(self._front.upstreams.of(provider).rules, named) if provider else named

    def _connect(
        self, request: _Request, verdict: Verdict, destination: Destination, authority: Authority, upstream: socket.socket
    ) -> None:
        if self._is_closed:
            upstream.close()
        elif verdict.action is Action.TUNNEL:
            self._tunnel(verdict, authority, upstream)
        else:
            self._decrypt(request, verdict, destination, authority, upstream)

    def _tunnel(self, verdict: Verdict, authority: Authority, upstream: socket.socket) -> None:
        if self._say(CONNECTED):
            self._front.open_tunnel(self._leave(), upstream, authority, _holder(verdict))
        else:
            upstream.close()
            self.close()

    def _decrypt(
        self, request: _Request, verdict: Verdict, destination: Destination, authority: Authority, upstream: socket.socket
    ) -> None:
        front = self._front
        # Not by the verdict's name: a reload may have given the host to another since then.
        provider = front.providers.claimant(authority)
        if destination != self._destination(provider.name if provider is not None else "", authority):
            # Nor to where only the provider of before would have it go.
            self._cannot_serve(authority, upstream)
            return
        if provider is None:
            # It took the provider away while we dialled; from here on the host is one like any other.
            self._tunnel(verdict, authority, upstream)
            return
        context = None
        if provider.status is ProviderStatus.ENABLED:
            try:
                context = front.client_contexts.context(authority.host)
            except CertificateError as exc:
                log.error("no certificate for %s: %s", authority.host, exc)
        if context is None:
            # A reload disabled the provider in this very moment, or the CA may not sign for its host.
            self._cannot_serve(authority, upstream)
            return
        if not self._say(CONNECTED):
            upstream.close()
            self.close()
            return
        token = _token_of(request.head)
        connection = DecryptedConnection(
            id=front.reporter.new_id(),
            authority=authority,
            provider=provider,
            principal=verdict.principal or ANONYMOUS,
            token=token,
        )
        client = self._leave()
        rules = front.upstreams.of(provider.name).rules
        if not rules.is_plain:
            courier = front.courier(client, ConnectRouter(front, connection, token), connection.principal.holder)
            courier.adopt(upstream, destination)
            courier.secure(context, authority.host, provider.name)
            if front.is_draining:
                courier.drain()
            return
        if front.settings.uses_mitmproxy:
            front.supervise(front.engine.serve(client, upstream, connection))
            return

        def closed(_reason: str) -> None:
            front.leave(relay)

        relay = Relay(
            client,
            upstream,
            connection,
            tap=front.tap,
            reporter=front.reporter,
            settings=front.settings.relay,
            deadlines=front.deadlines,
            turns=front.turns,
            on_closed=closed,
        )
        front.keep(relay, connection.principal.holder)
        try:
            relay.secure(context, front.upstream_tls)
        except BaseException:
            relay.close("error")
            raise
        if front.is_draining:
            relay.drain()

    def _exchange(
        self,
        request: _Request,
        authority: Authority,
        upstream: socket.socket,
        proxy: UpstreamProxy | None,
        *,
        holder: str,
    ) -> None:
        front = self._front
        client = self._leave()
        started = front.reporter.monotonic()

        def closed(reason: str) -> None:
            front.leave(exchange)
            front.tell_tunnel_closed(exchange, authority, reason, started)

        def done(rest: bytes) -> None:
            front.admit(client, self._client, rest)

        exchange = PlainExchange(
            client,
            upstream,
            deadlines=front.deadlines,
            idle_timeout_seconds=front.settings.tunnel_idle_timeout_seconds,
            max_head_bytes=front.settings.max_head_bytes,
            on_closed=closed,
            on_done=done,
            on_proxy_challenge=proxy.refused_credentials if proxy is not None else None,
        )
        front.keep(exchange, holder)
        if proxy is None:
            outgoing = for_origin(request.raw, request.head, request.target)
        else:
            # RFC 9110 §9.3.8: who answers a TRACE repeats the request, and so our credentials to the client.
            authorization = proxy.authorization if request.head.method != "TRACE" else ""
            outgoing = for_proxy(request.raw, request.head, request.target, authorization)
        own = front.settings.relay.own_headers
        if request.head.headers.has_any(own):
            outgoing = without_fields(outgoing, own)
        try:
            exchange.send(request.raw, request.head, outgoing, request.received)
        except BaseException:
            exchange.close("error")
            raise

    # Refusals

    def _cannot_serve(self, authority: Authority, upstream: socket.socket) -> None:
        upstream.close()
        self._say_last(plain_answer(503, "Service Unavailable", f"{authority.host} cannot be served now", close=True))

    def _refuse(self, request: _Request, decision: "Decision", decide_seconds: float) -> None:
        verdict = decision.verdict
        answer = decision.response or plain_answer(503, "Service Unavailable", "this proxy cannot decide about this request")
        self._tell(verdict, decision.authority, verdict.status_code or 503, decide_seconds)
        self._turn_away(request, answer)

    def _turn_away(self, request: _Request, answer: bytes) -> None:
        """Send a refusal, and await another try where that is possible."""
        if self._is_closed:
            return
        if request_length(request.head) != 0:
            self._say_last(answer)  # what follows is the body
        elif self._say(answer):
            self.await_head(request.received)
        else:
            self.close()

    def _say_last(self, answer: bytes) -> None:
        """Answer, and close when the client has sent what it is sending: unread bytes would reset the connection and the answer."""
        front = self._front
        self._stop_waiting()
        try:
            if not self._say(answer):
                raise BrokenPipeError
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._is_waiting = True
        self._deadline = front.deadlines.start(LINGER_SECONDS, self.close)
        front.loop.add_reader(self._fileno, self._discard)

    def _discard(self) -> None:
        try:
            ended = not self._connection.recv(_DISCARD_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            ended = True
        if ended:
            self.close()

    def _tell(
        self,
        verdict: Verdict,
        authority: Authority | None,
        status_code: int,
        decide_seconds: float,
        dial_seconds: float = 0.0,
        *,
        reason: str = "",
    ) -> None:
        reporter = self._front.reporter
        reason = reason or verdict.reason
        principal = verdict.principal
        if status_code != 200:
            self._front.refusals.note(self._client[0], reason, str(authority or ""), reporter.monotonic())
        reporter.tell(
            ConnectDecided(
                at=reporter.now(),
                action=verdict.action,
                reason=reason,
                status_code=status_code,
                host=authority.host if authority is not None else "",
                port=authority.port if authority is not None else 0,
                provider=verdict.provider,
                principal_id=principal.id if principal is not None else "",
                principal_name=principal.name if principal is not None else "",
                decide_seconds=decide_seconds,
                dial_seconds=dial_seconds,
            )
        )

    def _say(self, answer: bytes) -> bool:
        """Send a short answer; return whether the socket took it. A client that leaves no room for 1 KiB is not waited for."""
        try:
            return self._connection.send(answer) == len(answer)
        except OSError:
            return False


def _token_of(head: RequestHead) -> str:
    fields = head.headers.all("proxy-authorization")
    return (token_of(fields[0]) or "") if len(fields) == 1 else ""


def _holder(verdict: Verdict) -> str:
    return verdict.principal.holder if verdict.principal is not None else ""
