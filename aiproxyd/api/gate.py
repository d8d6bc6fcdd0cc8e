"""Decides whether a request may be made at all, before any route sees it, and puts the security headers on every answer.

* With a token configured, everything but the health endpoints, the CA's certificate, the login and the page's own files needs
  one: as a bearer, or by the cookie that the login gave.
* Without one the server listens on loopback only, and then a request must also name it by address or as `localhost`: otherwise
  any page in the user's browser could reach it through a name of its own that resolves to 127.0.0.1 (DNS rebinding).
* A request that changes something and comes from a browser must come from our own page.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from fastapi import Response
from fastapi.responses import RedirectResponse
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiproxyd.api.access import LOCAL, Caller, PageSessions, Role, caller_of_header, opens_metrics
from aiproxyd.api.problems import Problem, problem_response
from aiproxyd.api.state import AdminState

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ca-cert.pem", "/api/v2/aibridge/proxy/ca-cert.pem"})
"""What needs no token: a load balancer has none, and the certificate is public."""

METRICS_PATH = "/metrics"
LOGIN_PATH = "/login"
STATIC_PREFIX = "/static/"
COOKIE = "aiproxyd_session"

_SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Lets in who may ask, answers HEAD as GET, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, state: AdminState, sessions: PageSessions) -> None:
        self._app = app
        self._state = state
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        # The server carries nothing else; what it might carry one day must not get past unseen.
        assert scope["type"] == "http"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(field for field in _SECURITY_HEADERS if field[0] not in present)]
            await send(message)

        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        cookie = cookie_parser(fields.get("cookie", "")).get(COOKIE, "")
        caller = self._caller(scope["path"], fields, cookie)
        state = {**scope.get("state", {}), "caller": caller, "cookie": cookie}
        # The server sends no body after a HEAD, whatever the application answers.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        refusal = self._refusal(scope, fields, caller)
        await (refusal or self._app)({**scope, "method": method, "state": state}, receive, send_with_headers)

    def _caller(self, path: str, fields: Mapping[str, str], cookie: str) -> Caller | None:
        tokens = self._state.tokens
        authorization = fields.get("authorization", "")
        if path == METRICS_PATH and self._state.metrics_credentials:
            if opens_metrics(authorization, self._state.metrics_credentials):
                return Caller("metrics", Role.VIEWER)
        elif not tokens:
            return LOCAL
        if authorization:
            # A header that names nobody is not made good by a cookie.
            return caller_of_header(authorization, tokens)
        return self._sessions.caller(cookie, tokens) if cookie else None

    def _refusal(self, scope: Scope, fields: Mapping[str, str], caller: Caller | None) -> Response | None:
        """Return the answer to a request that may not be made."""
        path = scope["path"]
        host = fields.get("host", "")
        if not self._state.tokens and not is_local_name(host) and (caller is None or caller == LOCAL):
            sentence = "without admin.token this server answers only to an IP address or localhost as its host name"
            return problem_response(Problem(421, "This name is not served.", sentence))
        if scope["method"] not in _SAFE_METHODS and "authorization" not in fields and not is_own_page(fields):
            return problem_response(Problem(403, "This comes from another page.", "Only the page's own forms may do this."))
        if caller is not None or path in OPEN_PATHS or path == LOGIN_PATH or path.startswith(STATIC_PREFIX):
            return None
        if scope["method"] == "GET" and "text/html" in fields.get("accept", "") and not path.startswith("/api/"):
            there = path + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            return RedirectResponse(f"{LOGIN_PATH}?next={quote(there, safe='')}", 303)
        if path == METRICS_PATH and self._state.metrics_credentials:
            challenge = {"www-authenticate": 'Basic realm="aiproxyd metrics", Bearer realm="aiproxyd metrics"'}
            return problem_response(Problem(401, "Credentials are needed.", "credentials for metrics are needed"), challenge)
        challenge = {"www-authenticate": 'Bearer realm="aiproxyd admin"'}
        return problem_response(Problem(401, "A token is needed.", "a bearer token is needed"), challenge)


def is_own_page(fields: Mapping[str, str]) -> bool:
    """Return whether a request that changes something comes from our own page, or from no page at all."""
    site = fields.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = fields.get("origin")
    if origin is None:
        return True
    try:
        return bool(origin) and urlsplit(origin).netloc == fields.get("host", "")
    except ValueError:
        return False


def is_local_name(host: str) -> bool:
    """Return whether a `Host` value is an IP address or `localhost`: a name that no foreign zone can point here."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
