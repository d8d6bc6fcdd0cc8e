"""Keys that the organisation holds: clients use them without knowing them, they fail over, and each request has one record."""

import contextlib
import hashlib
import json
import sqlite3
import ssl
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.integration.conftest import DaemonMaker
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider
from tests.support.websocket_client import connect

FIRST, SECOND = "sk-ant-first-aaaaaaaaaaaaaaaa+status=429+retry=40", "sk-ant-second-bbbbbbbbbbbb2222"


def anthropic_with(*keys: str, **more: Any) -> dict[str, Any]:
    return {"providers": [{"name": "anthropic", "type": "anthropic", "keys": list(keys), **more}]}


def client_of(daemon: Daemon) -> httpx.Client:
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    return httpx.Client(proxy=daemon.proxy_url(), verify=trust, trust_env=False, timeout=60)


def message(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}], **more}


def ask(client: httpx.Client, model: str, *, key: str = "aiproxyd", **more: Any) -> httpx.Response:
    return client.post("https://api.anthropic.com/v1/messages", headers={"x-api-key": key}, json=message(model, **more))


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_key_is_limited_and_the_second_answers(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str, engine: str, stream: bool
) -> None:
    daemon = own_daemon(config={"decrypt": {"engine": engine}, **anthropic_with(FIRST, SECOND)})
    with anthropic.Anthropic(
        api_key="aiproxyd",
        max_retries=0,
        http_client=anthropic.DefaultHttpxClient(
            proxy=daemon.proxy_url(), verify=ssl.create_default_context(cafile=str(daemon.ca_file)), trust_env=False
        ),
    ) as client:
        if stream:
            with client.messages.stream(**message(model)) as events:
                answered = events.get_final_message().id
        else:
            answered = client.messages.create(**message(model)).id
    # The client sees one answer, and the store has one interception with the key that was used in the end.
    record = daemon.record(model)
    tried = provider.ledger.entries(model)
    assert [entry.credential for entry in tried] == [FIRST, SECOND]
    assert answered == tried[1].response_id
    assert_matches(record, tried[1], prompt="hello")
    assert (record["credential_kind"], record["credential_hint"]) == ("centralized", "sk-a...2222")
    assert (record["outcome"], record["metadata"]["attempts"]) == ("completed", "2")
    daemon.wait_for_metric(1, "coder_ai_gateway_key_pool_failover_attempts_count", provider="anthropic")
    daemon.wait_for_metric(1, "coder_ai_gateway_key_pool_state", provider="anthropic", state="temporary")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_key_pool_failover_attempts_sum") == 2
    assert metrics.total("coder_ai_gateway_key_pool_state_transitions_total", reason="rate_limited") == 1
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total", provider="anthropic") == 1
    assert metrics.total("coder_ai_gateway_proxy_mitm_responses_total", provider="anthropic", code="200") == 1
    # No key is anywhere but with the provider.
    for key in (FIRST, SECOND):
        assert key not in daemon.log()
        assert key not in metrics.text
        assert key not in json.dumps(record)


def test_when_all_keys_rest_the_answer_is_429_with_the_shortest_retry_after(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    daemon = own_daemon(config=anthropic_with(FIRST, "sk-ant-other-cccccccccccc+status=429+retry=20"))
    with client_of(daemon) as client:
        first, second = ask(client, model), ask(client, model)
    for answer in (first, second):
        assert answer.status_code == 429
        assert 18 <= int(answer.headers["retry-after"]) <= 20
        assert answer.json()["error"]["type"] == "rate_limit_error"
    assert len(provider.ledger.entries(model)) == 2
    for record in daemon.records(model, count=2):
        assert (record["outcome"], record["error_type"], record["status_code"]) == ("upstream_error", "rate_limited", 429)
    daemon.wait_for_metric(2, "coder_ai_gateway_key_pool_exhaustions_total", outcome="rate_limited")


def test_when_every_key_is_refused_the_answer_is_502_until_a_reload(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    daemon = own_daemon(
        config=anthropic_with("sk-ant-one-aaaaaaaaaaaaaaaa+status=401", "sk-ant-two-bbbbbbbbbbbbbbbb+status=403")
    )
    with client_of(daemon) as client:
        answer = ask(client, model)
        assert (answer.status_code, answer.json()["type"]) == (502, "error")
        assert ask(client, model).status_code == 502
        assert len(provider.ledger.entries(model)) == 2
        record = daemon.records(model, count=2)[0]
        assert (record["outcome"], record["error_type"]) == ("upstream_error", "unauthorized")
        daemon.write_config(**anthropic_with(SECOND))
        daemon.reload()
        daemon.wait_for_log("configuration reloaded")
        daemon.wait_for_metric(1, "coder_ai_gateway_key_pool_state", provider="anthropic", state="valid")
        assert ask(client, model).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_10_mb_body_is_not_lost(own_daemon: DaemonMaker, provider: FakeProvider, model: str, chunked: bool) -> None:
    daemon = own_daemon(config=anthropic_with(FIRST, SECOND))
    body = json.dumps(message(model, padding="x" * (10 << 20))).encode()
    content: Any = (body[start : start + 100_000] for start in range(0, len(body), 100_000)) if chunked else body
    with client_of(daemon) as client:
        answer = client.post("https://api.anthropic.com/v1/messages", headers={"x-api-key": "aiproxyd"}, content=content)
    assert answer.status_code == 200
    tried = provider.ledger.entries(model)
    assert [entry.request_sha256 for entry in tried] == [hashlib.sha256(body).hexdigest()] * 2
    assert daemon.record(model)["credential_hint"] == "sk-a...2222"


def test_a_body_that_is_not_kept_is_not_sent_again_and_the_record_says_so(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    daemon = own_daemon(config=anthropic_with(FIRST, SECOND, retry_body_max_bytes=1000))
    with client_of(daemon) as client:
        answer = ask(client, model, padding="x" * 1000)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "40")
    assert len(provider.ledger.entries(model)) == 1
    record = daemon.record(model)
    assert "retry_body_max_bytes" in record["metadata"]["retry"]
    assert (record["credential_hint"], record["status_code"]) == ("sk-a...y=40", 429)


def test_a_provider_that_repeats_the_key_does_not_tell_it_to_the_client(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str, engine: str
) -> None:
    daemon = own_daemon(config={"decrypt": {"engine": engine}, **anthropic_with(SECOND)})
    codings = ("identity", "gzip", "br", "zstd")
    for accepts in codings:
        own = f"{model}-{accepts}"
        with client_of(daemon) as client:
            client.headers["accept-encoding"] = accepts
            for number in range(2):
                answer = ask(client, f"{own}-{number}+status=400+echo=1")
                assert answer.status_code == 400
                assert SECOND not in answer.text
                assert "[hidden]" in answer.json()["error"]["message"]
            assert ask(client, f"{own}-after").status_code == 200
        assert [entry.credential for entry in provider.ledger.entries(own)] == [SECOND] * 3
        assert len({entry.connection for entry in provider.ledger.entries(own)}) == 1
        record = daemon.records(own, count=3)[0]
        assert (record["outcome"], record["status_code"]) == ("upstream_error", 400)
        assert SECOND not in json.dumps(record)
    eventually(lambda: daemon.log().count("repeats its key") == 2 * len(codings), "each answer to be told of")
    assert SECOND not in daemon.log()


def test_the_key_does_not_go_to_what_the_account_keeps(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=anthropic_with(SECOND))
    with client_of(daemon) as client:
        for path in ("/v1/models", "/v1/files", "/v1/organizations/users"):
            client.get(f"https://api.anthropic.com{path}?pace={model}", headers={"x-api-key": "aiproxyd"})
        assert ask(client, f"{model}-after").status_code == 200
    assert [entry.credential for entry in provider.ledger.entries(model)] == [SECOND, "aiproxyd", "aiproxyd", SECOND]


def test_a_user_s_own_key_wins_where_it_may(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=anthropic_with(SECOND))
    with client_of(daemon) as client:
        assert ask(client, model, key="sk-ant-mine-0123456789").status_code == 200
        record = daemon.record(model)
        assert (record["credential_kind"], record["credential_hint"]) == ("byok", "sk-a...6789")
        # Whoever sends the token of this proxy for a key has none.
        assert ask(client, model, key="alice-token").status_code == 200
    assert [entry.credential for entry in provider.ledger.entries(model)] == ["sk-ant-mine-0123456789", SECOND]


def test_byok_that_is_not_enabled_is_replaced_or_refused(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=anthropic_with(SECOND, byok=False))
    with client_of(daemon) as client:
        assert ask(client, model, key="sk-ant-mine-0123456789").status_code == 200
        assert provider.ledger.one(model).credential == SECOND
        refused = client.post(
            "https://api.anthropic.com/v1/messages",
            headers={"x-api-key": "sk-ant-mine-0123456789", "x-coder-ai-governance-token": "alice-token"},
            json=message(model),
        )
    assert refused.status_code == 403
    assert refused.json()["error"]["message"] == "Bring Your Own Key (BYOK) mode is not enabled."
    assert [record["outcome"] for record in daemon.records(model, count=2)] == ["completed", "refused"]


def test_codex_over_a_websocket_uses_the_next_key(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    keys = ["sk-proj-first-aaaaaaaaaaaaaaaa+status=429", "sk-proj-second-bbbbbbbbbbb3333"]
    daemon = own_daemon(config={"providers": [{"name": "openai", "type": "openai", "keys": keys}]})
    content = [{"type": "input_text", "text": "hello"}]
    turn = {"type": "response.create", "model": model, "input": [{"type": "message", "role": "user", "content": content}]}
    with connect(
        f"wss://api.openai.com/v1/responses?pace={model}",
        daemon,
        additional_headers={"authorization": "Bearer aiproxyd", "user-agent": "codex_cli_rs/0.87.0"},
    ) as websocket:
        for _ in range(2):
            websocket.send(json.dumps(turn))
            while json.loads(websocket.recv())["type"] != "response.completed":
                pass
    handshakes = [entry for entry in provider.ledger.entries(model) if entry.method == "GET"]
    assert [entry.credential for entry in handshakes] == keys
    for record in daemon.records(model, count=2):
        assert (record["credential_kind"], record["credential_hint"]) == ("centralized", "sk-p...3333")
        assert (record["outcome"], record["client"]) == ("completed", "Codex")


def test_a_breaker_refuses_the_model_that_is_down(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    breaker = {"enabled": True, "failure_threshold": 2, "interval_seconds": 0}
    entry = {"name": "openai", "type": "openai", "breaker": breaker}
    daemon = own_daemon(config={"providers": [entry]})
    down = f"{model}+status=503"
    with openai.OpenAI(
        api_key="sk-mine",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(
            proxy=daemon.proxy_url(), verify=ssl.create_default_context(cafile=str(daemon.ca_file)), trust_env=False
        ),
    ) as client:
        for _ in range(3):
            with pytest.raises(openai.InternalServerError) as raised:
                client.chat.completions.create(model=down, messages=[{"role": "user", "content": "hello"}])
        body = {"message": "circuit breaker is open", "type": "server_error", "code": "service_unavailable"}
        assert raised.value.response.json() == {"error": body}
        assert raised.value.response.headers["retry-after"] == "30"
        assert client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}]).id
    assert len(provider.ledger.entries(down)) == 2
    daemon.wait_for_metric(1, "coder_ai_gateway_circuit_breaker_rejects_total", model=down)
    metrics = daemon.metrics()
    labels = {"provider": "openai", "endpoint": "/v1/chat/completions", "model": down}
    assert metrics.total("coder_ai_gateway_circuit_breaker_trips_total", **labels) == 1
    assert metrics.total("coder_ai_gateway_circuit_breaker_state", **labels) == 1
    # A breaker that a reload takes away is not shown as open for ever.
    daemon.write_config(providers=[{"name": "openai", "type": "openai"}])
    daemon.reload()
    daemon.wait_for_metric(0, "coder_ai_gateway_circuit_breaker_state", **labels)


def test_aws_credentials_that_a_reload_brings_sign_while_others_are_served(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    daemon = own_daemon(config={"providers": [{"name": "anthropic", "type": "anthropic"}]}, workers=2)
    aws = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "the-secret-0123456789", "region": "eu-west-1"}
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=aiproxyd/20260101/us-east-1/bedrock/aws4_request, Signature=0"}
    with client_of(daemon) as client:
        assert ask(client, f"{model}-before", key="sk-ant-mine-0123456789").status_code == 200
        entries = [{"name": "anthropic", "type": "anthropic"}, {"name": "aws", "type": "bedrock", "keys": [aws]}]
        daemon.write_config(providers=entries)
        daemon.reload()
        number = 0
        while "configuration reloaded" not in daemon.log():
            number += 1
            assert ask(client, f"{model}-{number}", key="sk-ant-mine-0123456789").status_code == 200
        body = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        url = f"https://bedrock-runtime.us-east-1.amazonaws.com/model/{model}-signed/converse"
        assert client.post(url, headers=signed, json=body).status_code == 200
    assert "Credential=AKIDEXAMPLE/" in provider.ledger.one(f"{model}-signed").header("authorization")
    assert "not reloaded" not in daemon.log()


def test_actor_headers_tell_the_provider_who_it_is(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=anthropic_with(SECOND, actor_headers={"enabled": True, "groups": "x-ai-bridge-actor-groups"}))
    with client_of(daemon) as client:
        client.headers["x-ai-bridge-actor-metadata-username"] = "mallory"
        assert ask(client, model).status_code == 200
        client.get(f"https://api.anthropic.com/v1/models?pace={model}-models", headers={"x-api-key": "aiproxyd"})
    told, untold = provider.ledger.entries(model)
    assert told.header("x-ai-bridge-actor-metadata-username") == "alice"
    assert told.header("x-ai-bridge-actor-groups") == "testers"
    assert told.header("x-ai-bridge-actor-id") == daemon.record(model)["initiator"]["id"]
    assert not any("actor" in name.lower() for name, _ in untold.headers)


def test_what_one_worker_learns_of_a_key_the_others_know(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=anthropic_with(FIRST, SECOND), workers=2)
    with client_of(daemon) as client:
        assert ask(client, model).status_code == 200
        daemon.wait_for_metric(1, "coder_ai_gateway_key_pool_state", provider="anthropic", state="temporary")
        # Enough open connections at once that both workers have some.
        with contextlib.ExitStack() as stack:
            for _ in range(24):
                assert ask(stack.enter_context(client_of(daemon)), model).status_code == 200
    assert [entry.credential for entry in provider.ledger.entries(model)].count(FIRST) == 1
    daemon.records(model, count=25)
    with contextlib.closing(sqlite3.connect(daemon.data_dir / "aiproxyd.sqlite3")) as store:
        assert len(store.execute("SELECT DISTINCT worker_id FROM interceptions").fetchall()) == 2
