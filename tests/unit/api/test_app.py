import gzip
import socket
import ssl

import httpx
import pytest
import trustme
from prometheus_client import Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from aiproxyd.api.access import AdminToken, Role, digest_of
from aiproxyd.api.app import create_app
from aiproxyd.api.gate import OPEN_PATHS, is_local_name
from aiproxyd.api.live import LiveFeed
from aiproxyd.api.server import AdminServer
from aiproxyd.telemetry.families import create_registry
from tests.support.certificates import pem

TOKEN = "correct horse battery staple"


class State:
    """A daemon without records."""

    store = None
    proxy_listen = ("127.0.0.1:8888",)
    configured_users = ()
    asks_for_users = True

    def __init__(self):
        self.metrics_registry = create_registry()
        self.token = None
        self.metrics_credentials = ()
        self.conditions = {"store": (True, "reachable"), "workers": (True, "2 ready")}
        self.pem = trustme.CA().cert_pem.bytes()
        self.live = LiveFeed()

    @property
    def tokens(self):
        return [AdminToken("admin", digest_of(self.token), Role.ADMIN)] if self.token else []

    def providers(self):
        return []

    def readiness(self):
        return self.conditions

    def ca_pem(self):
        return self.pem


@pytest.fixture
def state():
    return State()


@pytest.fixture
async def client(state):
    """A client of the real application on the real server."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = AdminServer(create_app(state), listener)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False) as client:
        yield client
    await server.stop()


async def test_health_is_that_it_answers(client):
    response = await client.get("/healthz")
    assert (response.status_code, response.text) == (200, "ok\n")


async def test_ready_is_when_every_condition_holds(client, state):
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "checks": {"store": {"ok": True, "detail": "reachable"}, "workers": {"ok": True, "detail": "2 ready"}},
    }
    state.conditions = {**state.conditions, "store": (False, "database is locked")}
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["ready"] is False
    assert response.json()["checks"]["store"] == {"ok": False, "detail": "database is locked"}


async def test_without_the_token_readiness_keeps_its_words_to_itself(client, state):
    state.token = TOKEN
    assert (await client.get("/readyz")).json()["checks"]["store"] == {"ok": True}
    with_token = await client.get("/readyz", headers={"authorization": f"Bearer {TOKEN}"})
    assert with_token.json()["checks"]["store"] == {"ok": True, "detail": "reachable"}


async def test_metrics_are_text_unless_openmetrics_is_asked_for(client, state):
    Counter("things_total", "Things.", registry=state.metrics_registry).inc(3)
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "things" in [family.name for family in parse_text(response.text)]
    response = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "things" in [family.name for family in parse_openmetrics(response.text)]


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [("gzip", "gzip"), ("deflate, GZIP;q=0.5", "gzip"), ("*", "gzip"), ("gzip;q=0", None), ("identity", None), ("", None)],
)
async def test_metrics_are_compressed_for_who_takes_it(client, state, accept_encoding, coding):
    Counter("things_total", "Things. " * 500, registry=state.metrics_registry).inc(3)
    async with client.stream("GET", "/metrics", headers={"accept-encoding": accept_encoding}) as response:
        body = b"".join([part async for part in response.aiter_raw()])
    assert response.headers.get("content-encoding") == coding
    assert b"things_total 3" in (gzip.decompress(body) if coding else body)


@pytest.mark.parametrize("path", ["/ca-cert.pem", "/api/v2/aibridge/proxy/ca-cert.pem"])
async def test_the_ca_certificate_is_a_download(client, state, path):
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-pem-file"
    assert response.headers["content-disposition"] == "attachment; filename=ca-cert.pem"
    ssl.create_default_context().load_verify_locations(cadata=response.text)


async def test_of_a_file_that_holds_more_only_the_certificate_is_served(client, state):
    certificate = state.pem
    state.pem = pem("EC PRIVATE KEY", "MHcCAQEE") + certificate
    body = (await client.get("/ca-cert.pem")).content
    assert body.strip() == certificate.strip()
    assert b"PRIVATE" not in body


async def test_no_certificate_is_not_found(client, state):
    state.pem = pem("EC PRIVATE KEY", "MHcCAQEE")
    response = await client.get("/ca-cert.pem")
    assert response.status_code == 404
    assert b"PRIVATE" not in response.content


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/nothing", "/healthz/", "/x/healthz"])
async def test_with_a_token_everything_else_needs_it(client, state, path):
    state.token = TOKEN
    response = await client.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="aiproxyd admin"'
    assert (await client.get(path, headers={"authorization": f"Bearer {TOKEN}"})).status_code in {200, 404}


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_health_and_certificate_need_no_token(client, state, path):
    state.token = TOKEN
    assert (await client.get(path)).status_code == 200


async def test_a_token_that_a_reload_changed_counts_at_once(client, state):
    state.token = "old"
    assert (await client.get("/metrics", headers={"authorization": "Bearer old"})).status_code == 200
    state.token = "new"
    assert (await client.get("/metrics", headers={"authorization": "Bearer old"})).status_code == 401


async def test_an_answer_cannot_be_framed_sniffed_cached_or_scripted(client):
    for path in ("/healthz", "/metrics", "/nothing"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


async def test_a_page_that_rebinds_its_name_to_loopback_learns_nothing(client):
    """The attack: evil.example resolves to 127.0.0.1 the second time, so its script is of one origin with us."""
    response = await client.get("/metrics", headers={"host": "evil.example:8889"})
    assert response.status_code == 421
    assert "admin.token" in response.json()["detail"]


async def test_with_a_token_any_name_will_do(client, state):
    state.token = TOKEN
    headers = {"host": "aiproxyd.example", "authorization": f"Bearer {TOKEN}"}
    assert (await client.get("/metrics", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1:8889", True),
        ("127.0.0.1", True),
        ("[::1]:8889", True),
        ("10.1.2.3", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("a.localhost", True),
        ("localhost.evil.example", False),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", True),
        ("[", False),
    ],
)
def test_a_local_name_is_an_address_or_localhost(host, answer):
    assert is_local_name(host) is answer


async def test_head_is_answered_as_get_without_the_body(client):
    response = await client.head("/healthz")
    assert (response.status_code, response.content) == (200, b"")


async def test_another_method_is_not_allowed(client):
    assert (await client.post("/metrics")).status_code == 405


async def test_there_are_no_pages_that_load_scripts_from_elsewhere(client):
    assert (await client.get("/docs")).status_code == 404
    assert (await client.get("/redoc")).status_code == 404


async def test_the_openapi_document_lists_the_endpoints_once(client):
    document = (await client.get("/openapi.json")).json()
    records = {path for path in document["paths"] if path.startswith("/api/")}
    assert set(document["paths"]) - records == {"/healthz", "/readyz", "/metrics", "/ca-cert.pem"}
    assert all(path.startswith("/api/v2/ai-gateway/") for path in records)


@pytest.mark.parametrize("admin_token", [None, "admin-secret-token"])
def test_metrics_may_have_credentials_of_their_own(admin_token):
    from starlette.testclient import TestClient

    state = State()
    state.token = admin_token
    state.metrics_credentials = ("Bearer scrape-me", "Basic dTpw")
    client = TestClient(create_app(state), base_url="http://127.0.0.1")
    for authorization, status in (
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic d3Jvbmc=", 401),
        ("bearer scrape-me", 200),
        ("BASIC dTpw", 200),
        ("Bearer admin-secret-token", 200 if admin_token else 401),
    ):
        answer = client.get("/metrics", headers={"authorization": authorization} if authorization else {})
        assert answer.status_code == status, authorization
    assert "Basic" in client.get("/metrics").headers["www-authenticate"]
    # They open nothing else.
    if admin_token:
        assert client.get("/openapi.json", headers={"authorization": "Bearer scrape-me"}).status_code == 401
