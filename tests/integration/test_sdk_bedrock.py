"""`boto3` and the `anthropic` SDK's client for Bedrock, unchanged, by environment variables alone: Converse and InvokeModel, streamed
and not, with tools. The daemon has Bedrock besides its usual providers.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, EventStreamError  # type: ignore[import-untyped]

from tests.integration.conftest import ENGINES
from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches, tools_of
from tests.support.fake_provider import FakeProvider
from tests.support.ledger import Entry

pytestmark = pytest.mark.usefixtures("_environment")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"toolSpec": {"name": name, "inputSchema": {"json": SCHEMA}}} for name in ("get_weather", "get_news")]
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}


@pytest.fixture(scope="module", params=ENGINES)
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider
) -> Iterator[Daemon]:
    config = {"decrypt": {"engine": request.param}, "providers": [{"name": "bedrock", "type": "bedrock"}]}
    with Daemon(tmp_path_factory.mktemp("bedrock"), provider, config=config) as daemon:
        yield daemon


@pytest.fixture
def _environment(daemon: Daemon, through: Callable[[Daemon], None], monkeypatch: pytest.MonkeyPatch) -> None:
    through(daemon)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


KEYS = {"aws_access_key": "AKIDEXAMPLEEXAMPLE", "aws_secret_key": "secret"}


@pytest.fixture
def client(_environment: None) -> Iterator[Any]:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id=KEYS["aws_access_key"],
        aws_secret_access_key=KEYS["aws_secret_key"],
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=30),
    )
    yield client
    client.close()


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assert_recorded(daemon: Daemon, entry: Entry, *, prompt: str | None, **expected: Any) -> dict[str, Any]:
    """Assert that the one record of `entry` says what the provider knows; Bedrock's answers have a request id at most."""
    record = daemon.record(entry.model)
    if entry.usage and not entry.response_id:
        entry.response_id = record["token_usages"][0]["provider_response_id"]
    assert_matches(record, entry, prompt=prompt, **expected)
    return record


def test_a_blocking_converse_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    answer = client.converse(modelId=model, messages=[user({"text": "How are you? 🦊"})], additionalModelRequestFields=THINKING)
    entry = provider.ledger.one(model)
    assert answer["usage"]["outputTokens"] == entry.usage["output_tokens"]
    record = assert_recorded(daemon, entry, prompt="How are you? 🦊")
    assert record["provider"] == "bedrock"
    assert record["client"] == "AWS SDK"


def test_a_streamed_converse_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    model += "+events=20"
    stream = client.converse_stream(modelId=model, messages=[user({"text": "Hi"})], additionalModelRequestFields=THINKING)[
        "stream"
    ]
    events = list(stream)
    entry = provider.ledger.one(model)
    assert events[-1]["metadata"]["usage"]["inputTokens"] == entry.usage["input_tokens"]
    assert_recorded(daemon, entry, prompt="Hi")


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_tool_loop_is_recorded_with_every_parallel_call(
    daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool
) -> None:
    model += "+tools=2"
    messages = [user({"text": "News and weather?"})]
    options = {"modelId": model, "messages": messages, "toolConfig": {"tools": TOOLS}}
    calls = []
    if streamed:
        for event in client.converse_stream(**options)["stream"]:
            if start := event.get("contentBlockStart"):
                calls.append({**start["start"]["toolUse"], "input": ""})
            elif calls and "toolUse" in (event.get("contentBlockDelta") or {}).get("delta", {}):
                calls[-1]["input"] += event["contentBlockDelta"]["delta"]["toolUse"]["input"]
        calls = [{**call, "input": json.loads(call["input"])} for call in calls]
    else:
        blocks = client.converse(**options)["output"]["message"]["content"]
        calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    assert [call["name"] for call in calls] == ["get_weather", "get_news"]
    messages.append({"role": "assistant", "content": [{"toolUse": call} for call in calls]})
    answers = [{"toolUseId": call["toolUseId"], "content": [{"text": "fine"}]} for call in calls]
    messages.append(user(*({"toolResult": answer} for answer in answers)))
    assert client.converse(**options)["stopReason"] == "end_turn"

    records = daemon.records(model, count=2)
    assert tools_of(records[0]) == [(call["name"], call["toolUseId"], call["input"]) for call in calls]
    assert [len(record["user_prompts"]) for record in records] == [1, 0]


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_an_invoked_model_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]}
    arguments = {"modelId": model, "body": json.dumps({**body, **THINKING})}
    if streamed:
        chunks = [
            json.loads(event["chunk"]["bytes"]) for event in client.invoke_model_with_response_stream(**arguments)["body"]
        ]
        assert "amazon-bedrock-invocationMetrics" in chunks[-1]
    else:
        assert json.loads(client.invoke_model(**arguments)["body"].read())["type"] == "message"
    assert_recorded(daemon, provider.ledger.one(model), prompt="Hi")


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_the_anthropic_sdk_on_bedrock_is_recorded(daemon: Daemon, provider: FakeProvider, model: str, streamed: bool) -> None:
    # Colons in the name, as real ones have, stay as they are in this client's paths.
    model += ":0"
    options: dict[str, Any] = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]}
    with anthropic.AnthropicBedrock(**KEYS, aws_region="us-east-1", max_retries=0) as client:
        if streamed:
            with client.messages.stream(**options) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(**options)
    entry = provider.ledger.one(model)
    assert message.usage.output_tokens == entry.usage["output_tokens"]
    record = assert_recorded(daemon, entry, prompt="Hi")
    assert record["client"] == "Anthropic SDK"


@pytest.mark.parametrize(
    ("status", "error_type"), [(400, "bad_request"), (403, "unauthorized"), (429, "rate_limited"), (503, "server_error")]
)
def test_an_error_status_reaches_the_client_and_the_record(
    daemon: Daemon, provider: FakeProvider, client, model: str, status: int, error_type: str
) -> None:
    model += f"+status={status}"
    with pytest.raises(ClientError, match=f"the fake provider says {status}"):
        client.converse(modelId=model, messages=[user({"text": "Hi"})])
    record = assert_recorded(daemon, provider.ledger.one(model), prompt="Hi", outcome="upstream_error")
    assert record["error_type"] == error_type


def test_an_exception_inside_a_stream_is_recorded(daemon: Daemon, client, model: str) -> None:
    model += "+error=4"
    stream = client.converse_stream(modelId=model, messages=[user({"text": "Hi"})])["stream"]
    with contextlib.closing(stream), pytest.raises(EventStreamError, match="Too many requests"):
        list(stream)
    record = daemon.record(model)
    assert record["outcome"] == "upstream_error"
    assert record["error_type"] == "rate_limited"
    assert record["error_message"] == "Too many requests, please wait before trying again."


def test_a_stream_that_is_cut_is_an_abort(daemon: Daemon, client, model: str) -> None:
    model += "+cut=4"
    stream = client.converse_stream(modelId=model, messages=[user({"text": "Hi"})])["stream"]
    with contextlib.closing(stream), pytest.raises(Exception, match=r".+"):  # which one is the SDK's business
        list(stream)
    record = daemon.record(model)
    assert record["outcome"] == "upstream_aborted"
    assert record["usage_source"] == "estimated"
