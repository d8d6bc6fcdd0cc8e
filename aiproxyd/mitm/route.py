"""What is done with one request besides forwarding it: where it goes, which head it gets, which key it carries, whether it may go.

The way of the bytes is the courier's (`courier`); how a route is found is the routers' (`routers`).
"""

import logging
from typing import Protocol

import msgspec

from aiproxyd.breaker import BreakerState, Line, Rejected, Result, Ticket, result_of
from aiproxyd.credentials import CredentialDecision, edit_with, hint_of, without_query_key
from aiproxyd.key_pool import KeyWalk
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.kept_body import KeptBody
from aiproxyd.mitm.key_screen import KeyScreen
from aiproxyd.mitm.leg import Destination
from aiproxyd.mitm.report import Reporter
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.model.observation import BreakerChanged, BreakerRejected, KeyFailover, KeyPoolExhausted, KeyStateChanged
from aiproxyd.provider_errors import Answer, ErrorShape, answer, breaker_open, keys_exhausted
from aiproxyd.sigv4 import sign
from aiproxyd.upstream import Upstream, UpstreamRules
from aiproxyd.wire.http1_edit import HeadEdits

log = logging.getLogger(__name__)


class Refusal(msgspec.Struct, frozen=True):
    """A request that goes nowhere."""

    answer: Answer
    reason: str
    """For the record; a sentence."""
    seen: RequestHead
    connection: DecryptedConnection | None = None
    """For the record; None when there is none."""


class Router(Protocol):
    """Finds the route of each request of a connection: `routers` has them."""

    async def route(self, head: RequestHead) -> "Route | Refusal":
        """Return what is done with the request that begins with `head`."""


class Change(msgspec.Struct, frozen=True):
    """What a route changes on a head whatever the key."""

    target: str = ""
    removed: frozenset[str] = frozenset()
    fields: tuple[tuple[str, str], ...] = ()


class Route:
    """The way of one request.

    Its methods are called in the order a request has: `next_key`, `admit`, then for each try `edits`, `answered`, `next_key`; and in the
    end, whatever happens, `settle`.
    """

    __slots__ = (
        "_change",
        "_connection",
        "_decision",
        "_is_told",
        "_key",
        "_reporter",
        "_shape",
        "_ticket",
        "_upstream",
        "_walk",
        "destination",
        "endpoint",
        "seen",
    )

    def __init__(
        self,
        upstream: Upstream,
        *,
        destination: Destination,
        connection: DecryptedConnection | None,
        seen: RequestHead,
        endpoint: Endpoint,
        decision: CredentialDecision,
        change: Change,
        shape: ErrorShape,
        reporter: Reporter,
    ) -> None:
        """
        Args:
            upstream: The provider entry's rules and memory.
            destination: Where the request goes.
            connection: Whose it is; None when nothing is told of it.
            seen: Its head as the provider knows it: what is recorded.
            endpoint: What it names.
            decision: Whose credential it goes with.
            change: What is changed whatever the key.
            shape: How errors look.
            reporter: Is told what becomes of keys and breakers, and knows the time.
        """
        self._upstream = upstream
        self.destination = destination
        self._connection = connection
        self.seen = seen
        self.endpoint = endpoint
        self._decision = decision
        self._change = change
        self._shape = shape
        self._reporter = reporter
        self._walk: KeyWalk | None = upstream.pool.walk() if decision.uses_pool else None
        self._key: UpstreamKey | None = None
        self._ticket: Ticket | None = None
        self._is_told = False

    @property
    def rules(self) -> UpstreamRules:
        """The provider entry's settings."""
        return self._upstream.rules

    @property
    def connection(self) -> DecryptedConnection | None:
        """Whose request it is, with the mask of the key in use; None when nothing is told of it."""
        connection, hint = self._connection, self.hint
        return connection if connection is None or hint is None else msgspec.structs.replace(connection, key_hint=hint)

    @property
    def needs_body(self) -> bool:
        """Whether the whole body must be known before anything is sent."""
        return self._has_breaker or (self._walk is not None and any(key.is_aws for key in self._upstream.pool.keys))

    @property
    def _has_breaker(self) -> bool:
        return self._upstream.breakers is not None and bool(self.endpoint.api)

    @property
    def is_signed(self) -> bool:
        """Whether the key in use signs the request instead of standing in it."""
        return self._key is not None and self._key.is_aws

    @property
    def hint(self) -> str | None:
        """The mask of the key in use; None where the client's own goes on."""
        if self._walk is None:
            return None
        return hint_of(self._key) if self._key is not None else ""

    @property
    def screen(self) -> KeyScreen | None:
        """What its answers go through to the client; None where it carries the client's own credential."""
        if self._walk is None:
            return None
        return KeyScreen(self._upstream.rules.provider, self._upstream.secret_forms, self.error)

    def admit(self, model: str) -> Answer | None:
        """Return the answer to a request that may not go because what it wants is down; None when it may."""
        breakers = self._upstream.breakers
        if breakers is None or not self._has_breaker:
            return None
        line = Line(self.endpoint.route, model)
        admitted, changed = breakers.admit(line, self._reporter.monotonic())
        self._tell_breaker(line, changed)
        if isinstance(admitted, Rejected):
            self._reporter.tell(
                BreakerRejected(
                    at=self._reporter.now(), provider=self.rules.provider, endpoint=self.endpoint.route, model=model
                )
            )
            return breaker_open(self._shape, admitted.retry_after_seconds)
        self._ticket = admitted
        return None

    def next_key(self) -> Answer | None:
        """Take the next key; return the answer when there is none left. Nothing to do where the client's own goes on."""
        if self._walk is None:
            return None
        now = self._reporter.monotonic()
        self._key = self._walk.next(now)
        if self._key is not None:
            return None
        exhausted = self._upstream.pool.exhausted(now)
        at, provider = self._reporter.now(), self.rules.provider
        self._reporter.tell(KeyPoolExhausted(at=at, provider=provider, outcome=exhausted.outcome))
        self._tell_failover()
        return keys_exhausted(exhausted, self._shape)

    def edits(self, head: RequestHead, body: KeptBody) -> HeadEdits:
        """Return what is changed on the head for the key in use.

        Args:
            head: As the client sent it.
            body: The whole body, where `needs_body`.

        Raises:
            AiproxydError: The request cannot be signed.
        """
        change = self._change
        credential = self._decision.edit
        if self._key is not None and self._key.is_aws:
            host = dict(change.fields).get("Host") or head.headers.first("host") or self.destination.authority.host
            credential = sign(self._key, self.seen, body.data, host=host, at=self._reporter.now())
        elif self._key is not None:
            credential = edit_with(self._key, self._upstream.rules.type)
        target = change.target
        if credential.removes_query_key and head.query:
            target = without_query_key(target or f"{head.path}?{head.query}")
        removed = change.removed | credential.remove
        if self.needs_body:
            removed |= {"expect"}  # the client was told to go on by us
        return HeadEdits(target=target, removed=removed, fields=change.fields + credential.add)

    def answered(self, head: ResponseHead) -> bool:
        """Take note of an answer's head; return whether it says that another key should be tried."""
        if self.rules.target is not None and head.status_code >= 400:
            level = logging.ERROR if head.status_code >= 500 else logging.WARNING
            log.log(level, "the gateway at %s answered %d", self.destination.authority, head.status_code)
        if self._walk is None:
            return False
        reporter = self._reporter
        mark = self._upstream.key_answered(self._walk.index, head.status_code, head.headers, reporter.monotonic())
        if mark is not None:
            reporter.tell(
                KeyStateChanged(
                    at=reporter.now(),
                    provider=self.rules.provider,
                    state=str(mark.state),
                    reason=mark.reason,
                    credential_hint=self.hint or "",
                    cooldown_seconds=mark.cooldown_seconds,
                )
            )
        return self._walk.fails_over(head.status_code)

    def settle(self, status_code: int | None, *, is_failure: bool = False) -> None:
        """Say what came of it; only the first call counts.

        Args:
            status_code: Of the answer; None without one.
            is_failure: Whether it was the provider's fault that there is none.
        """
        if status_code is not None:
            self._tell_failover()
        ticket, self._ticket = self._ticket, None
        breakers = self._upstream.breakers
        if ticket is None or breakers is None:
            return
        result = Result.FAILURE if is_failure else Result.UNKNOWN
        if status_code is not None:
            result = result_of(status_code)
        self._tell_breaker(ticket.line, breakers.settle(ticket, result, self._reporter.monotonic()))

    def _tell_failover(self) -> None:
        walk = self._walk
        if walk is not None and not self._is_told and walk.attempts:
            self._is_told = True
            self._reporter.tell(KeyFailover(at=self._reporter.now(), provider=self.rules.provider, attempts=walk.attempts))

    def _tell_breaker(self, line: Line, changed: BreakerState | None) -> None:
        if changed is not None:
            at, provider = self._reporter.now(), self.rules.provider
            self._reporter.tell(
                BreakerChanged(at=at, provider=provider, endpoint=line.endpoint, model=line.model, state=str(changed))
            )

    def error(self, status_code: int, message: str) -> Answer:
        """Return an answer of ours in the provider's shape."""
        return answer(status_code, message, self._shape)
