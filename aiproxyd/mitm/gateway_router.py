"""Routes the requests of the reverse listener: `/{provider}/v1/…` goes to the provider's base URL, for clients that are given one.

Coder's gateway, by its rules. Who a client is stands in `X-Coder-AI-Governance-Token`, `Authorization: Bearer` or `X-Api-Key`, in this
order. With the first, the client brings its own key in the others; without it, they hold the client's token of this proxy, are
both taken off, and the provider entry's key takes their place.

Fails closed: nobody is served whose credential cannot be checked.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from aiproxyd import credentials
from aiproxyd.classify import Provider, ProviderStatus, find_endpoint
from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.journal_guard import CANNOT_RECORD
from aiproxyd.mitm.leg import Destination
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.route import Change, Refusal, Route
from aiproxyd.mitm.routers import RoutingState, bearer_of, destination_of, host_of, retargeted, route_of
from aiproxyd.model.credential import CredentialKind
from aiproxyd.model.endpoint import PASSTHROUGH
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.model.principal import ANONYMOUS, Principal
from aiproxyd.provider_errors import Answer, ErrorShape, answer, shape_of
from aiproxyd.upstream import Target

log = logging.getLogger(__name__)

# Coder's texts.
NO_KEY = "no authentication key provided"
UNAUTHORIZED = "unauthorized"

FROM_A_PAGE = "a web page is not served where nobody is asked for a credential"

_CREDENTIALS = frozenset(credentials.CREDENTIAL_HEADERS)


class Authenticator(Protocol):
    """Who knows whose a token is: `identity.remote.RemoteIdentity` does."""

    async def authenticate(self, credential: str) -> Principal | None:
        """Return whose credential it is, or None when it is nobody's.

        Raises:
            AiproxydError: Nobody could be asked.
        """


class GatewayState(RoutingState, Protocol):
    """What is looked up for each request: `front.Front` has it."""

    @property
    def authenticator(self) -> Authenticator | None: ...
    @property
    def reporter(self) -> Reporter: ...
    @property
    def is_refusing(self) -> Callable[[], bool]: ...


class GatewayRouter:
    """Routes the requests of one client of the reverse listener."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._id = state.reporter.new_id()

    async def route(self, head: RequestHead) -> Route | Refusal:
        """See `Router`."""
        state = self._state
        name, _, rest = head.path.removeprefix("/").partition("/")
        rest = f"/{rest}"
        provider = state.providers.by_name(name)
        shape = shape_of(provider.type) if provider is not None else ErrorShape.GENERIC
        # Where nobody is asked who they are, what they send is a key for the provider.
        token = token_of(head) if state.authenticator is not None else ""
        principal: Principal | Answer = ANONYMOUS
        if state.authenticator is not None:
            principal = await self._authenticate(state.authenticator, token, shape)
        elif comes_from_a_page(head):
            return Refusal(answer(403, FROM_A_PAGE, shape), FROM_A_PAGE, head)
        if isinstance(principal, Answer):
            return Refusal(principal, "the client is not known", head)
        if state.is_refusing():
            return Refusal(answer(503, CANNOT_RECORD, shape, retry_after_seconds=2), CANNOT_RECORD, head)
        upstream = state.upstreams.of(name)
        base = upstream.rules.base
        if provider is None or provider.status is not ProviderStatus.ENABLED or base is None:
            # Not to be tried again: the answer of a stub without routes.
            sentence = f"route not supported: {head.method} {head.path}"
            return Refusal(answer(404, sentence, shape), sentence, head)
        path = path_of(provider, base, head.method, rest)
        seen = RequestHead(head.method, f"{path}?{head.query}" if head.query else path, head.headers, head.version)
        named = Destination(base.authority, is_tls=base.scheme == "https", is_exempt=True)
        if upstream.rules.target is not None:
            change = retargeted(state, seen, provider, upstream.rules.target, token="", path=rest)
        else:
            target = f"{path}?{head.query}" if head.query else path
            change = Change(target=target, removed=state.own_headers, fields=(("Host", host_of(base)),))
        decision = self._decision(seen, provider, has_keys=bool(upstream.rules.keys)) if token else None
        if decision is not None and upstream.rules.target is None:
            seen = _without_credentials(seen)
        return route_of(
            state,
            upstream,
            connection=DecryptedConnection(self._id, base.authority, provider, principal, token),
            seen=seen,
            destination=destination_of(upstream.rules, named),
            change=change,
            is_own_token=lambda credential: bool(token) and credential == token,
            decision=decision,
        )

    async def _authenticate(self, authenticator: Authenticator, token: str, shape: ErrorShape) -> Principal | Answer:
        if not token:
            return answer(400, NO_KEY, shape)
        try:
            principal = await authenticator.authenticate(token)
        except AiproxydError as exc:
            log.warning("a request of the reverse listener is refused because its credential cannot be checked: %s", exc)
            return answer(503, "credentials cannot be checked right now; try again in a moment", shape, retry_after_seconds=2)
        return answer(403, UNAUTHORIZED, shape) if principal is None else principal

    @staticmethod
    def _decision(seen: RequestHead, provider: Provider, *, has_keys: bool) -> credentials.CredentialDecision | None:
        """Return what is to happen with the credential of a client that brings no key of its own; None for the others."""
        if credentials.GOVERNANCE_TOKEN_HEADER in seen.headers:
            return None
        if has_keys and find_endpoint(provider, seen.method, seen.path).takes_key:
            return credentials.CredentialDecision(CredentialKind.CENTRALIZED, uses_pool=True)
        return credentials.CredentialDecision(CredentialKind.BYOK, edit=credentials.HeadEdit(remove=_CREDENTIALS))


def _without_credentials(head: RequestHead) -> RequestHead:
    """Return a head as the provider knows it, when no credential of the client goes on."""
    kept = Headers((name, value) for name, value in head.headers if name not in _CREDENTIALS)
    return RequestHead(head.method, f"{head.path}?{head.query}" if head.query else head.path, kept, head.version)


def comes_from_a_page(head: RequestHead) -> bool:
    """Return whether a browser sends the request for a page.

    Any page that somebody opens can send requests to loopback, and would spend the organisation's keys.
    """
    return "origin" in head.headers or (head.headers.first("sec-fetch-site") or "none").strip() != "none"


def token_of(head: RequestHead) -> str:
    """Return the client's credential of this proxy; empty when there is none."""
    headers = head.headers
    return (
        (headers.first(credentials.GOVERNANCE_TOKEN_HEADER) or "").strip()
        or bearer_of(head)
        or (headers.first("x-api-key") or "").strip()
    )


def path_of(provider: Provider, base: Target, method: str, rest: str) -> str:
    """Return the path at the provider for what a client writes behind `/{provider}`.

    Base URLs of some SDKs hold the `/v1` and those of others do not, so the first spelling that names an endpoint is taken.

    Args:
        provider: Whose endpoints are looked through.
        base: Its base URL.
        method: Of the request.
        rest: What the client wrote.
    """
    spellings = [f"{provider.path_prefix}{rest}"]
    if base.path and rest.startswith(f"{base.path}/"):
        spellings = [rest, *spellings]
    elif base.path:
        spellings = [f"{base.path}{rest.removeprefix('/v1')}", *spellings]
    known = (spelling for spelling in spellings if find_endpoint(provider, method, spelling) is not PASSTHROUGH)
    return next(known, spellings[0])
