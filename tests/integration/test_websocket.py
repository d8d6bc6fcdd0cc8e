"""A WebSocket through a decrypted connection: upgraded, unchanged, not kept, its turns recorded, ended."""

import asyncio
import json
import ssl

import pytest
from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches, prompts_of, tokens_of
from tests.support.fake_provider import FakeProvider
from tests.support.websocket_client import WebSocket, connect


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_pass_both_ways(daemon: Daemon, provider: FakeProvider, model: str, compression: str | None) -> None:
    url = f"wss://api.openai.com/v1/responses?pace={model}"
    with connect(url, daemon, compression=compression) as websocket:
        for text in ("hello", "Ünïcode 🦊", "x" * 200_000):
            websocket.send(text)
            assert websocket.recv() == text
        websocket.send(bytes(range(256)) * 100)
        assert websocket.recv() == bytes(range(256)) * 100
        websocket.ping()
    entry = provider.ledger.one(model)
    assert entry.header("proxy-authorization") == ""
    provider.ledger.wait_for(lambda _: entry.end == "complete")


def test_a_websocket_returns_the_gauges_to_zero(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    with connect(f"wss://api.openai.com/v1/responses?pace={model}", daemon) as websocket:
        websocket.send("hello")
        websocket.recv()
    daemon.wait_for_metric(1, "coder_ai_gateway_proxy_mitm_responses_total")
    daemon.wait_for_metric(0, "coder_ai_gateway_proxy_inflight_mitm_requests")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total") == 1
    assert metrics.total("coder_ai_gateway_proxy_mitm_responses_total", code="101") == 1


def turn(model: str, text: str, **more: object) -> dict[str, object]:
    content = [{"type": "input_text", "text": text}]
    return {
        "type": "response.create",
        "model": model,
        "input": [{"type": "message", "role": "user", "content": content}],
        **more,
    }


def say(websocket: WebSocket, message: dict[str, object]) -> list[dict]:
    """Send a turn and return what the provider says until it ends."""
    websocket.send(json.dumps(message))
    heard = []
    while not heard or heard[-1]["type"] not in {"response.completed", "response.done", "error"}:
        heard.append(json.loads(websocket.recv()))
    return heard


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("carrier", ["relay", "mitmproxy"])
def test_each_turn_of_a_responses_connection_is_recorded(
    own_daemon, provider: FakeProvider, model: str, compression: str | None, carrier: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": carrier}})
    tools = [{"type": "function", "name": "ls", "parameters": {"properties": {"path": {"type": "string"}}}}]
    headers = {"session-id": "s-42", "User-Agent": "codex_exec/0.169.0 (Debian 12)"}
    with connect(
        "wss://api.openai.com/v1/responses",
        daemon,
        compression=compression,
        additional_headers=headers,
        user_agent_header=None,
    ) as websocket:
        warm = say(websocket, turn(f"{model}-0", "You are an agent.", generate=False))
        first = say(websocket, turn(f"{model}-1", "Hi", tools=tools, previous_response_id=warm[-1]["response"]["id"]))
        call = first[-1]["response"]["output"][-1]
        output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "a b"}]
        say(websocket, turn(f"{model}-2", "", tools=tools, input=output, previous_response_id=first[-1]["response"]["id"]))
        assert say(websocket, turn(f"{model}-3+status=400", "No"))[-1]["status"] == 400
        say(websocket, turn(f"{model}-4+length=300000", "Much"))
    records = {record["model"]: record for record in daemon.records(model, count=5)}
    entries = {entry.model: entry for entry in provider.ledger.entries(model) if entry.method == "WS"}
    assert len(entries) == 5
    assert_matches(records[f"{model}-0"], entries[f"{model}-0"])
    assert records[f"{model}-0"]["metadata"]["warmup"] == "true"
    assert_matches(records[f"{model}-1"], entries[f"{model}-1"], prompt="Hi")
    assert_matches(records[f"{model}-2"], entries[f"{model}-2"])
    assert_matches(records[f"{model}-4+length=300000"], entries[f"{model}-4+length=300000"], prompt="Much")
    refused = records[f"{model}-3+status=400"]
    assert (refused["outcome"], prompts_of(refused)) == ("upstream_error", ["No"])
    assert {record["client"] for record in records.values()} == {"Codex"}
    assert {record["client_session_id"] for record in records.values()} == {"s-42"}
    # Requests and responses add up: five turns and the handshake.
    daemon.wait_for_metric(6, "coder_ai_gateway_proxy_mitm_responses_total")
    daemon.wait_for_metric(0, "coder_ai_gateway_proxy_inflight_mitm_requests")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total") == 6
    assert metrics.total("coder_ai_gateway_proxy_mitm_responses_total", code="101") == 1


def test_a_provider_that_leaves_within_a_turn_leaves_what_was_reported(daemon: Daemon, model: str) -> None:
    url = "wss://api.openai.com/v1/responses"
    with connect(url, daemon) as websocket, pytest.raises(ConnectionClosed):
        say(websocket, turn(f"{model}+cut=5", "Hi"))
    (record,) = daemon.records(model, count=1)
    assert (record["outcome"], prompts_of(record)) == ("upstream_aborted", ["Hi"])


def test_a_client_that_leaves_within_a_turn_has_aborted_it(daemon: Daemon, model: str) -> None:
    # It does not wait until the provider has read its close frame, which is when the answer is over.
    with connect("wss://api.openai.com/v1/responses", daemon, close_timeout=0.1) as websocket:
        websocket.send(json.dumps(turn(f"{model}+events=1000+pause=0.02", "Hi")))
        assert json.loads(websocket.recv())["type"] == "response.created"
    (record,) = daemon.records(model, count=1)
    assert record["outcome"] == "client_aborted"


def test_the_openai_sdk_speaks_realtime(own_daemon, provider: FakeProvider, monkeypatch, model: str) -> None:
    daemon: Daemon = own_daemon()
    monkeypatch.setenv("HTTPS_PROXY", daemon.proxy_url())
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))

    # Not the SDK's client without asyncio, for what `websocket_client` says.
    async def talk() -> None:
        async with (
            AsyncOpenAI(api_key="sk-test") as client,
            client.realtime.connect(model=model, websocket_connection_options={"ssl": trust}) as connection,
        ):
            await connection.session.update(session={"type": "realtime", "model": model})
            content = [{"type": "input_text", "text": "Say hello"}]
            await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    break

    asyncio.run(talk())
    (record,) = daemon.records(model, count=1)
    entry = next(entry for entry in provider.ledger.entries(model) if entry.method == "WS")
    assert tokens_of(record) == entry.usage
    assert prompts_of(record) == ["Say hello"]
    assert record["token_usages"][0]["metadata"]["prompt_audio"] == 11


def test_what_the_speaker_said_is_written_down_by_another_model_and_counted_as_its_own(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    url = f"wss://api.openai.com/v1/realtime?model={model}"
    sound = {"input": {"transcription": {"model": f"{model}-transcribe"}}}
    with connect(url, daemon) as websocket:
        websocket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "model": model, "audio": sound}}))
        for _ in range(3):
            websocket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
            websocket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            websocket.send(json.dumps({"type": "response.create"}))
            while json.loads(websocket.recv())["type"] != "response.done":
                pass
    records = daemon.records(model, count=6)
    entries = [entry for entry in provider.ledger.entries(model) if entry.method == "WS"]
    assert len(entries) == 6
    for entry in entries:
        (record,) = [record for record in records if record["provider_response_id"] == entry.response_id]
        assert (record["model"], record["outcome"], tokens_of(record)) == (entry.model, "completed", entry.usage)
        if entry.model != model:
            assert record["metadata"]["utility"] == "transcription"
            assert record["token_usages"][0]["metadata"]["input_audio"] == entry.usage["input_tokens"]
