"""`listen_gateway`: SDKs that are given a base URL, without a proxy and without a CA, are recorded like all others."""

from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider

OPENAI_KEY, ANTHROPIC_KEY = "sk-proj-organisation-4444", "sk-ant-organisation-5555"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Any:
    config = {
        "listen_gateway": "127.0.0.1:0",
        "providers": [
            {"name": "claude", "type": "anthropic", "keys": [ANTHROPIC_KEY]},
            {"name": "openai", "type": "openai", "keys": [f"{OPENAI_KEY}+status=429", OPENAI_KEY]},
            {"name": "router", "type": "openrouter", "base_url": "https://openrouter.ai/api/v1"},
            {"name": "local", "type": "openai-compat", "base_url": f"http://127.0.0.1:{provider.plain_port}/v1"},
            {"name": "old", "type": "openai", "enabled": False, "hosts": ["old.example"]},
        ],
    }
    with Daemon(tmp_path_factory.mktemp("gateway"), provider, config=config) as daemon:
        yield daemon


def test_the_block_of_the_start_names_it(daemon: Daemon) -> None:
    assert f"  gateway  {daemon.gateway_url}/PROVIDER\n" in daemon.log()


@pytest.mark.parametrize("stream", [False, True])
def test_the_anthropic_sdk_with_a_base_url(daemon: Daemon, provider: FakeProvider, model: str, stream: bool) -> None:
    question: Any = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    with anthropic.Anthropic(base_url=f"{daemon.gateway_url}/claude", api_key="alice-token", max_retries=0) as client:
        if stream:
            with client.messages.stream(**question) as events:
                answered = events.get_final_message().id
        else:
            answered = client.messages.create(**question).id
    entry, record = provider.ledger.one(model), daemon.record(model)
    assert answered == entry.response_id
    assert (entry.sni, entry.target, entry.header("host")) == ("api.anthropic.com", "/v1/messages", "api.anthropic.com")
    assert entry.credential == ANTHROPIC_KEY
    assert "alice-token" not in str(entry.headers)
    assert_matches(record, entry, prompt="hello")
    assert record["initiator"]["name"] == "alice"
    assert (record["provider_name"], record["credential_hint"]) == ("claude", "sk-a...5555")


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_openai_sdk_with_a_base_url(daemon: Daemon, provider: FakeProvider, model: str, api: str) -> None:
    with openai.OpenAI(base_url=f"{daemon.gateway_url}/openai/v1", api_key="bob-token", max_retries=0) as client:
        if api == "chat":
            answered = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}]).id
        else:
            answered = client.responses.create(model=model, input="hello").id
        assert client.models.list().data
    entry, record = provider.ledger.entries(model)[-1], daemon.record(model)
    assert answered == entry.response_id
    assert entry.credential == OPENAI_KEY
    assert entry.target == ("/v1/chat/completions" if api == "chat" else "/v1/responses")
    assert_matches(record, entry, prompt="hello")
    assert record["initiator"]["name"] == "bob"
    assert record["credential_hint"] == "sk-p...4444"


def test_a_user_s_own_key_beside_the_governance_token(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    headers = {"X-Coder-AI-Governance-Token": "alice-token"}
    with openai.OpenAI(
        base_url=f"{daemon.gateway_url}/router/v1", api_key="sk-or-mine-777777", max_retries=0, default_headers=headers
    ) as client:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
    entry, record = provider.ledger.one(model), daemon.record(model)
    assert (entry.sni, entry.target) == ("openrouter.ai", "/api/v1/chat/completions")
    assert entry.credential == "sk-or-mine-777777"
    assert entry.header("x-coder-ai-governance-token") == ""
    assert (record["credential_kind"], record["initiator"]["name"]) == ("byok", "alice")


def test_a_provider_without_tls(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    with openai.OpenAI(base_url=f"{daemon.gateway_url}/local/v1", api_key="alice-token", max_retries=0) as client:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
    entry = provider.ledger.one(model)
    assert (entry.sni, entry.target) == ("", "/v1/chat/completions")
    assert entry.header("authorization") == ""
    record = daemon.record(model)
    assert record["provider_name"] == "local"
    # The token is taken off, and it is no key of the user's.
    assert (record["credential_kind"], record["credential_hint"]) == ("byok", "")


def test_a_key_beside_a_token_that_is_taken_off_with_it_is_no_hint(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    with openai.OpenAI(
        base_url=f"{daemon.gateway_url}/local/v1",
        api_key="alice-token",
        max_retries=0,
        default_headers={"X-Api-Key": "sk-or-mine-777777"},
    ) as client:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
    entry, record = provider.ledger.one(model), daemon.record(model)
    assert (entry.header("authorization"), entry.header("x-api-key")) == ("", "")
    assert record["credential_hint"] == ""


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/openai/v1/responses", "", 400),
        ("/openai/v1/responses", "wrong", 403),
        ("/nobody/v1/responses", "alice-token", 404),
        ("/old/v1/responses", "alice-token", 404),
    ],
)
def test_what_is_not_served_says_so(daemon: Daemon, provider: FakeProvider, path: str, token: str, status: int) -> None:
    before = len(provider.ledger.entries())
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = httpx.post(daemon.gateway_url + path, headers=headers, json={"model": "x"}, trust_env=False)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert len(provider.ledger.entries()) == before


def test_a_revoked_user_is_refused_on_a_connection_that_stands(own_daemon: Any, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config={"listen_gateway": "127.0.0.1:0", "auth": {"cache_seconds": 0}})
    with httpx.Client(headers={"x-api-key": "bob-token"}, trust_env=False) as client:
        url = f"{daemon.gateway_url}/anthropic/v1/messages"
        question = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        assert client.post(url, json=question).status_code == 200
        users = [user for user in daemon.config["auth"]["users"] if user["name"] != "bob"]
        daemon.write_config(auth={"users": users})
        daemon.reload()
        eventually(lambda: client.post(url, json=question).status_code == 403, "the revocation")
        assert client.post(url, headers={"x-api-key": "alice-token"}, json=question).status_code == 200
