"""The admin application: metrics, health, the CA's certificate, records and the page. Not the server that carries it, and no state
of its own. Who may ask is decided in `gate`.
"""

import asyncio
import gzip
import re
from typing import Annotated, Any

import prometheus_client.exposition
from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry

import aiproxyd
from aiproxyd.api import rest
from aiproxyd.api.access import PageSessions
from aiproxyd.api.gate import Gate
from aiproxyd.api.page.views import create_page
from aiproxyd.api.problems import Problem, install_problems
from aiproxyd.api.state import AdminState

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

# Below it compression costs more than it saves.
_MIN_GZIP_BYTES = 1400


def create_app(state: AdminState) -> FastAPI:
    """Return the application that shows `state`."""
    app = FastAPI(
        title="aiproxyd",
        version=aiproxyd.__version__,
        description="Records, figures and health of an AI egress proxy.",
        # The pages of both would load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_problems(app)

    @app.get("/healthz", tags=["health"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """Say that the process serves."""
        return "ok\n"

    @app.get("/readyz", tags=["health"], responses={503: {"description": "A condition does not hold."}})
    async def readyz(request: Request) -> JSONResponse:
        """Say whether the proxy does its work, and which conditions hold. The words about them are for those with a token."""
        conditions = state.readiness()
        ready = all(holds for holds, _ in conditions.values())
        may_know = request.state.caller is not None
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
            raise Problem(404, "There is no CA certificate.")
        return Response(
            certificate[0] + b"\n",
            media_type="application/x-pem-file",
            headers={"content-disposition": "attachment; filename=ca-cert.pem"},
        )

    sessions = PageSessions()
    # The gate has checked the token; this only tells the OpenAPI document that there is one.
    bearer = [Depends(HTTPBearer(auto_error=False))]
    records = rest.create_router(state)
    for prefix in rest.PREFIXES:
        app.include_router(records, prefix=prefix, dependencies=bearer, include_in_schema=prefix == rest.PREFIXES[0])
    app.include_router(create_page(state, sessions), include_in_schema=False)
    app.add_middleware(Gate, state=state, sessions=sessions)
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
