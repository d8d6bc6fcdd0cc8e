"""The admin application: metrics, health, the CA's certificate. Not the server that carries it, and no state of its own.

Who may ask: with a token configured, everything but the health endpoints and the CA's certificate needs it. Without one the
server listens on loopback only, and then a request must also name it by address or as `localhost`: otherwise any page in the
user's browser could reach it through a name of its own that resolves to 127.0.0.1 (DNS rebinding).
"""

import asyncio
import gzip
import hashlib
import hmac
import ipaddress
import re
from typing import Annotated, Any, Protocol

import prometheus_client.exposition
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import aiproxyd

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ca-cert.pem", "/api/v2/aibridge/proxy/ca-cert.pem"})
"""What needs no token: a load balancer has none, and the certificate is public."""

METRICS_PATH = "/metrics"

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

# Below it compression costs more than it saves.
_MIN_GZIP_BYTES = 1400

_SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class AdminState(Protocol):
    """What the application shows; control has it."""

    @property
    def metrics_registry(self) -> CollectorRegistry:
        """Every metric of the daemon."""

    @property
    def token(self) -> str | None:
        """The bearer token, or None when none is asked for. Read at each request, so that a reload changes it."""

    @property
    def metrics_credentials(self) -> tuple[str, ...]:
        """Values of `Authorization` that open `/metrics` besides the token; none when that alone does."""

    def readiness(self) -> dict[str, tuple[bool, str]]:
        """Return every condition of readiness by name: whether it holds, and a word about its state."""

    def ca_pem(self) -> bytes:
        """Return PEM that begins with the CA's certificate."""


def create_app(state: AdminState) -> FastAPI:
    """Return the application that shows `state`."""
    app = FastAPI(
        title="aiproxyd",
        version=aiproxyd.__version__,
        # The pages of both would load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )

    @app.get("/healthz", tags=["health"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """Say that the process serves."""
        return "ok\n"

    @app.get("/readyz", tags=["health"], responses={503: {"description": "A condition does not hold."}})
    async def readyz(request: Request) -> JSONResponse:
        """Say whether the proxy does its work, and which conditions hold. The words about them are for those with the token."""
        conditions = state.readiness()
        ready = all(holds for holds, _ in conditions.values())
        may_know = is_authorized(request.headers.get("authorization", ""), state.token)
        checks: dict[str, dict[str, Any]] = {
            name: {"ok": holds, "detail": detail} if may_know else {"ok": holds} for name, (holds, detail) in conditions.items()
        }
        return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)

    @app.get("/metrics", tags=["metrics"], response_class=PlainTextResponse)
    async def metrics(accept: Annotated[str, Header()] = "", accept_encoding: Annotated[str, Header()] = "") -> Response:
        """Every metric, as OpenMetrics when `Accept` asks for it, in Prometheus' text format otherwise."""
        # In a thread: an exposition of many thousand series takes longer than the loop may stand still.
        return await asyncio.to_thread(exposition, state.metrics_registry, accept, accept_encoding)

    @app.get("/ca-cert.pem", tags=["ca"], response_class=Response, responses={200: {"content": {"application/x-pem-file": {}}}})
    @app.get("/api/v2/aibridge/proxy/ca-cert.pem", include_in_schema=False)
    async def ca_certificate() -> Response:
        """The certificate that clients are to trust."""
        certificate = _CERTIFICATE.search(state.ca_pem())
        if certificate is None:
            return JSONResponse({"detail": "there is no CA certificate"}, status_code=404)
        return Response(
            certificate[0] + b"\n",
            media_type="application/x-pem-file",
            headers={"content-disposition": "attachment; filename=ca-cert.pem"},
        )

    app.add_middleware(Gate, state=state)
    return app


def exposition(registry: CollectorRegistry, accept: str, accept_encoding: str) -> Response:
    """Return the metrics of `registry` in the best format and coding that the client takes."""
    encode, content_type = prometheus_client.exposition.choose_encoder(accept)
    body = encode(registry)
    headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if len(body) >= _MIN_GZIP_BYTES and _accepts_gzip(accept_encoding):
        # The lowest level: metrics are so repetitive that it is within a few percent of the highest, at a fifth of the cost.
        body = gzip.compress(body, compresslevel=1)
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers)


def _accepts_gzip(accept_encoding: str) -> bool:
    for element in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in element.split(";"))
        if coding in {"gzip", "*"}:
            return not any(re.fullmatch(r"q\s*=\s*0(?:\.0*)?", parameter) for parameter in parameters)
    return False


def is_authorized(authorization: str, token: str | None) -> bool:
    """Return whether an `Authorization` value carries `token`, or none is asked for.

    Compares digests in constant time, so that neither the token's length nor its beginning can be measured.
    """
    if token is None:
        return True
    scheme, _, credential = authorization.partition(" ")
    given = hashlib.sha256(credential.strip().encode()).digest()
    return scheme.lower() == "bearer" and hmac.compare_digest(given, hashlib.sha256(token.encode()).digest())


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


def opens_metrics(authorization: str, credentials: tuple[str, ...]) -> bool:
    """Return whether an `Authorization` value is one of `credentials`. In constant time, whichever it is."""
    scheme, _, credential = authorization.partition(" ")
    given = hashlib.sha256(f"{scheme.title()} {credential.strip()}".encode()).digest()
    return sum(hmac.compare_digest(given, hashlib.sha256(value.encode()).digest()) for value in credentials) > 0


class Gate:
    """Lets in who may ask, answers HEAD as GET, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, state: AdminState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        # The server carries nothing else; what it might carry one day must not get past unseen.
        assert scope["type"] == "http"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(field for field in _SECURITY_HEADERS if field[0] not in present)]
            await send(message)

        if scope["method"] == "HEAD":
            # The server sends no body after a HEAD, whatever the application answers.
            scope = {**scope, "method": "GET"}
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that may not be made."""
        fields = {name: value.decode("latin-1") for name, value in scope["headers"]}
        authorization = fields.get(b"authorization", "")
        if scope["path"] == METRICS_PATH and self._state.metrics_credentials:
            has_token = self._state.token is not None and is_authorized(authorization, self._state.token)
            if has_token or opens_metrics(authorization, self._state.metrics_credentials):
                return None
            return JSONResponse(
                {"detail": "credentials for metrics are needed"},
                status_code=401,
                headers={"www-authenticate": 'Basic realm="aiproxyd metrics", Bearer realm="aiproxyd metrics"'},
            )
        if self._state.token is None:
            if not is_local_name(fields.get(b"host", "")):
                return JSONResponse(
                    {"detail": "without admin.token this server answers only to an IP address or localhost as its host name"},
                    status_code=421,
                )
        elif scope["path"] not in OPEN_PATHS and not is_authorized(authorization, self._state.token):
            return JSONResponse(
                {"detail": "a bearer token is needed"},
                status_code=401,
                headers={"www-authenticate": 'Bearer realm="aiproxyd admin"'},
            )
        return None
