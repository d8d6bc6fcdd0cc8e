"""Twin of aiproxyd/api/rest.py: the answers have the shapes that the OpenAPI document promises, for each role."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from aiproxyd.api import schemas
from aiproxyd.api.access import AdminToken, Role, digest_of
from aiproxyd.api.app import create_app
from aiproxyd.api.live import LiveFeed
from aiproxyd.api.rest import event_stream
from aiproxyd.api.state import ProviderFact
from aiproxyd.storage.store import Store
from aiproxyd.telemetry.families import create_registry
from tests.support.observations import START, described, ended, life, of_worker, started, thought, tool_called


class State:
    """A daemon with a store of its own."""

    metrics_credentials = ()
    proxy_listen = ("0.0.0.0:8888",)
    configured_users = (("dora", ("web",)), ("alice-too", ()))
    asks_for_users = True

    def __init__(self, store: Store) -> None:
        self.store = store
        self.live = LiveFeed()
        self.metrics_registry = create_registry()
        self.tokens = [AdminToken(str(role), digest_of(str(role)), role) for role in Role]
        self.forgotten = 0

    def providers(self) -> list[Any]:
        keys = {"valid": 2, "temporary": 1, "permanent": 0}
        return [
            ProviderFact("anthropic", "anthropic", "enabled", "", ("api.anthropic.com",), keys),
            ProviderFact("off", "openai", "disabled", "enabled is false", (), {}),
        ]

    def readiness(self) -> dict[str, tuple[bool, str]]:
        return {}

    def ca_pem(self) -> bytes:
        return b""

    async def reload(self) -> str:
        return "line 3: nonsense"

    def users_changed(self) -> None:
        self.forgotten += 1


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    store = await Store.open(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    lines = [*life("a"), started("b", at=START + 9), described("b", at=START + 9, client_session_id="s"), thought("b")]
    lines += [tool_called("b", "c"), ended("b", at=START + 10), started("open", at=START + 20)]
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    yield State(store)
    await store.close()


@pytest.fixture
def app(state: State) -> FastAPI:
    return create_app(state)


def _client(app: FastAPI, role: Role = Role.ADMIN, **more: Any) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {role}"}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://admin.example/api/v2/ai-gateway", headers=headers, **more)


SHAPES = {
    "/interceptions": schemas.Interceptions,
    "/interceptions/b": schemas.Interception,
    "/sessions": schemas.Sessions,
    "/sessions/s": schemas.SessionDetail,
    "/usage": schemas.Usage,
    "/usage?group_by=user,day": schemas.Usage,
    "/users": list[schemas.KnownUser],
    "/models": list[str],
    "/clients": list[str],
    "/providers": list[str],
    "/providers/status": list[schemas.ConfiguredProvider],
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("path", SHAPES)
async def test_answers_have_the_promised_shape(app: FastAPI, path: str, role: Role) -> None:
    async with _client(app, role) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    TypeAdapter(SHAPES[path]).validate_python(answer.json(), strict=True)
    has_content = any(word in answer.text for word in ("Fix the bug.", "Hm.", '{\\"command'))
    assert not has_content or role is not Role.VIEWER


async def test_providers_are_shown_with_the_states_of_their_keys_and_no_key(app: FastAPI) -> None:
    async with _client(app, Role.VIEWER) as client:
        answer = await client.get("/providers/status")
    assert answer.json() == [
        {
            "name": "anthropic",
            "type": "anthropic",
            "status": "enabled",
            "reason": "",
            "hosts": ["api.anthropic.com"],
            "keys": {"valid": 2, "temporary": 1, "permanent": 0},
        },
        {"name": "off", "type": "openai", "status": "disabled", "reason": "enabled is false", "hosts": [], "keys": {}},
    ]


@pytest.mark.parametrize(
    "path", ["/interceptions?limit=0", "/sessions?q=x", "/sessions/none", "/usage?group_by=x", "/interceptions?after_id=x"]
)
async def test_failures_have_one_shape(app: FastAPI, path: str) -> None:
    async with _client(app) as client:
        answer = await client.get(path)
    assert answer.status_code in {400, 404}
    schemas.ProblemAnswer.model_validate(answer.json(), strict=True, extra="forbid")


async def test_a_method_that_is_not_allowed_is_told_all_that_are(app: FastAPI) -> None:
    async with _client(app) as client:
        answer = await client.request("OPTIONS", "/users")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"


async def test_both_prefixes_answer_alike(app: FastAPI) -> None:
    async with _client(app) as client:
        old = await client.get("http://admin.example/api/v2/aibridge/sessions")
        assert old.json() == (await client.get("/sessions")).json()


async def test_pages_and_counts(app: FastAPI) -> None:
    async with _client(app) as client:
        page = (await client.get("/interceptions?limit=1")).json()
        assert (page["count"], [record["id"] for record in page["results"]]) == (3, ["open"])
        page = (await client.get("/interceptions?after_id=open")).json()
        assert [record["id"] for record in page["results"]] == ["b", "a"]
        page = (await client.get("/sessions?limit=1")).json()
        assert (page["count"], [session["id"] for session in page["sessions"]]) == (2, ["s"])
        page = (await client.get("/sessions?after_session_id=s")).json()
        assert [session["id"] for session in page["sessions"]] == ["a"]
        assert (await client.get("/sessions?offset=1")).json()["sessions"] == page["sessions"]


async def test_me_is_whoever_asks(app: FastAPI, state: State) -> None:
    state.tokens.append(AdminToken("alice", digest_of("alice"), Role.AUDITOR))
    async with _client(app, "alice") as client:  # type: ignore[arg-type]
        assert (await client.get("/interceptions?q=initiator:me")).json()["count"] == 3


async def test_users_are_made_and_revoked_by_admins(app: FastAPI, state: State) -> None:
    async with _client(app) as client:
        made = await client.post("/users", json={"name": "carol", "groups": ["x"]})
        assert made.status_code == 201
        assert made.json()["token"].startswith("aip_")
        assert (await client.post("/users", json={"name": "carol"})).status_code == 409
        assert (await client.post("/users", json={"name": "dora"})).status_code == 409
        assert (await client.post("/users", json={"name": "a\nb"})).status_code == 400
        assert (await client.post("/users", json={"name": ""})).status_code == 400
        statuses = {user["name"]: user["status"] for user in (await client.get("/users")).json()}
        assert statuses == {"alice": "seen", "alice-too": "configured", "carol": "active", "dora": "configured"}
        assert (await client.delete("/users/carol")).status_code == 204
        assert (await client.delete("/users/carol")).status_code == 404
    assert state.forgotten == 2
    async with _client(app, Role.AUDITOR) as client:
        assert (await client.post("/users", json={"name": "x"})).status_code == 403
        assert (await client.delete("/users/x")).status_code == 403


async def test_a_store_that_is_away_is_a_503(app: FastAPI, state: State) -> None:
    async with state.store._engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE interceptions RENAME TO elsewhere")
    async with _client(app) as client:
        answer = await client.get("/sessions")
    assert answer.status_code == 503
    assert "the store refused: no such table" in answer.json()["detail"]


async def test_a_live_stream_is_server_sent_events_that_no_text_can_break() -> None:
    feed = LiveFeed()
    onlooker = feed.join()
    assert onlooker is not None
    attack = "x\n\nevent: forged\ndata: {}\n\n\r\u2028"
    feed.observe("w", started("i"))
    feed.observe("w", described("i", prompt=attack))
    feed.observe("w", ended("i"))
    onlooker.dropped = 3
    stream = event_stream(feed, onlooker, with_content=True)
    parts = [await anext(stream) for _ in range(5)]
    feed.close()
    assert [part async for part in stream] == []
    events = [line for part in parts for line in part.split(b"\n") if line.startswith(b"event:")]
    assert events == [b"event: dropped", b"event: started", b"event: described", b"event: ended"]
    assert feed.onlookers == 0


def test_the_document_names_every_route_and_its_failures(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/api/"):
                assert {"400", "401"} <= set(operation["responses"]), path
                assert operation["security"]
