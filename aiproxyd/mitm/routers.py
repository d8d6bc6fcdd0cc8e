"""How the route of a request is found: by the CONNECT it came through, or by the path on the reverse listener.

The rules of providers are looked up anew for each request, so a reload counts from the next request on.
"""

import logging
import uuid
from collections.abc import Callable
from typing import Protocol

import msgspec

from aiproxyd import credentials
from aiproxyd.classify import Provider, ProviderStatus, ProviderTable, find_endpoint
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.hop_by_hop import GOVERNANCE_HEADERS, REQUEST_ID_HEADER
from aiproxyd.mitm.leg import Destination
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.route import Change, Refusal, Route
from aiproxyd.model.credential import CredentialKind
from aiproxyd.model.endpoint import PASSTHROUGH
from aiproxyd.model.head import RequestHead
from aiproxyd.provider_errors import answer, shape_of
from aiproxyd.upstream import Target, Upstream, UpstreamRules, Upstreams

log = logging.getLogger(__name__)

_DEFAULT_PORTS = {"https": 443, "http": 80}


class RoutingState(Protocol):
    """What a router looks up for each request: `front.Front` has it."""

    @property
    def providers(self) -> ProviderTable: ...
    @property
    def upstreams(self) -> Upstreams: ...
    @property
    def own_headers(self) -> frozenset[str]: ...
    @property
    def reporter(self) -> Reporter: ...


def destination_of(rules: UpstreamRules, named: Destination) -> Destination:
    """Return where requests to a provider go: to its target, else where the client named."""
    if rules.target is None:
        return named
    return Destination(rules.target.authority, is_tls=rules.target.scheme == "https", is_exempt=True)


class ConnectRouter:
    """Routes the requests of one decrypted connection behind a CONNECT."""

    def __init__(self, state: RoutingState, connection: DecryptedConnection, token: str) -> None:
        """
        Args:
            state: What is in use now.
            connection: As its CONNECT was decided.
            token: The client's credential of this proxy; empty when it sent none.
        """
        self._state = state
        self.connection = connection
        self._token = token
        self._is_warned = False

    async def route(self, head: RequestHead) -> Route | Refusal:
        """See `Router`."""
        state, connection = self._state, self.connection
        named = Destination(connection.authority)
        provider = state.providers.claimant(connection.authority)
        if provider is None or provider.status is not ProviderStatus.ENABLED or provider.name != connection.provider.name:
            return self._stale(head, named)
        upstream = state.upstreams.of(provider.name)
        connection = msgspec.structs.replace(connection, provider=provider)
        change = Change(removed=state.own_headers)
        if upstream.rules.target is not None:
            change = retargeted(state, head, provider, upstream.rules.target, token=self._token)
        return route_of(
            state,
            upstream,
            connection=connection,
            seen=head,
            destination=destination_of(upstream.rules, named),
            change=change,
            is_own_token=lambda token: token == self._token,
        )

    def _stale(self, head: RequestHead, named: Destination) -> Route:
        """Let a request go where its client meant it to go, with nothing told of it: its provider is not ours any more."""
        provider = self.connection.provider
        if not self._is_warned:
            self._is_warned = True
            log.warning(
                "requests of an open connection to %s go there unrecorded: it is not %s's any more",
                named.authority,
                provider.name,
            )
        # What leaves is the client's own, but for its credential of this proxy.
        edit = credentials.without_token(head, self._token) if self._token else credentials.HeadEdit()
        return Route(
            Upstream(UpstreamRules(provider.name, provider.type)),
            destination=named,
            connection=None,
            seen=head,
            endpoint=PASSTHROUGH,
            decision=credentials.CredentialDecision(CredentialKind.BYOK, edit=edit),
            change=Change(removed=self._state.own_headers),
            shape=shape_of(provider.type),
            reporter=self._state.reporter,
        )


def retargeted(
    state: RoutingState, head: RequestHead, provider: Provider, target: Target, *, token: str, path: str | None = None
) -> Change:
    """Return what a gateway is to get: its own URL, an id of the request, and who the client is unless it says so itself.

    Args:
        state: What is in use now.
        head: The client's.
        provider: By whose name the gateway knows it.
        target: The gateway.
        token: The client's credential of this proxy, to be told; empty for none.
        path: Behind the provider's name, where it is another one than that of the head.
    """
    fields = [("Host", host_of(target)), ("X-Coder-AI-Governance-Request-Id", str(uuid.uuid4()))]
    if token and credentials.GOVERNANCE_TOKEN_HEADER not in head.headers and bearer_of(head) != token:
        fields.append(("X-Coder-AI-Governance-Token", token))
    query = f"?{head.query}" if head.query else ""
    return Change(
        target=f"{target.path}/{provider.name}{path or head.path}{query}",
        removed=state.own_headers - GOVERNANCE_HEADERS | {REQUEST_ID_HEADER},
        fields=tuple(fields),
    )


def route_of(
    state: RoutingState,
    upstream: Upstream,
    *,
    connection: DecryptedConnection,
    seen: RequestHead,
    destination: Destination,
    change: Change,
    is_own_token: Callable[[str], bool],
    decision: credentials.CredentialDecision | None = None,
) -> Route | Refusal:
    """Return the route of a request of a provider in use.

    Args:
        state: What is in use now.
        upstream: The provider's entry.
        connection: Whose request it is.
        seen: Its head as the provider knows it.
        destination: Where it goes.
        change: What is changed whatever the key.
        is_own_token: Whether a text is the client's credential of this proxy.
        decision: Whose credential it goes with, where that is known.
    """
    rules, provider = upstream.rules, connection.provider
    endpoint = find_endpoint(provider, seen.method, seen.path)
    shape = shape_of(provider.type, endpoint.api)
    if rules.target is not None:
        # Whose credential goes on is the gateway's decision.
        decision = credentials.CredentialDecision(CredentialKind.BYOK)
    elif decision is None:
        decision = credentials.decide(
            seen,
            has_keys=bool(rules.keys),
            byok=rules.byok,
            takes_key=endpoint.takes_key,
            is_own_token=is_own_token,
        )
    if decision.refusal:
        return Refusal(answer(403, decision.refusal, shape), decision.refusal, seen, connection)
    actor = rules.actor_headers
    if actor.names:
        # Those of a client are its own claim. Nobody is told about who lists models.
        fields = actor.fields(connection.principal) if endpoint.api or endpoint.websocket else ()
        change = Change(change.target, change.removed | actor.names, change.fields + fields)
    return Route(
        upstream,
        destination=destination,
        connection=connection,
        seen=seen,
        endpoint=endpoint,
        decision=decision,
        change=change,
        shape=shape,
        reporter=state.reporter,
    )


def host_of(target: Target) -> str:
    """Return the `Host` of requests to a URL: its authority without the port that its scheme has anyway."""
    host, port = target.authority
    return str(target.authority) if port != _DEFAULT_PORTS[target.scheme] else (f"[{host}]" if ":" in host else host)


def bearer_of(head: RequestHead) -> str:
    """Return the credential of `Authorization: Bearer`; empty when there is none."""
    scheme, _, credential = (head.headers.first("authorization") or "").strip().partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""
