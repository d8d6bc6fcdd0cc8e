"""The `anthropic` SDK, unchanged, by environment variables alone: every answer arrives, every request has one exact record."""

import asyncio
from collections.abc import Callable

import anthropic
import pytest

from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches, tools_of
from tests.support.fake_provider import FakeProvider

pytestmark = pytest.mark.usefixtures("_environment")

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
CLOCK = {"name": "get_time", "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}


@pytest.fixture
def _environment(daemon: Daemon, through: Callable[[Daemon], None]) -> None:
    through(daemon)


@pytest.fixture
def client():
    with anthropic.Anthropic(api_key="sk-ant-api03-abcdefgh", max_retries=0) as client:
        yield client


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_blocking_answer_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    answer = client.messages.create(model=model, max_tokens=50, messages=user("How are you, Ünïcode? 🦊"))
    record, entry = daemon.record(model), provider.ledger.one(model)
    assert answer.id == entry.response_id
    assert answer.usage.input_tokens == entry.usage["input_tokens"]
    assert_matches(record, entry, prompt="How are you, Ünïcode? 🦊")
    assert record["provider"] == "anthropic"
    assert record["initiator"]["name"] == "alice"
    # The hint masks what the client sent; the key itself is nowhere.
    assert record["credential_hint"] == "sk-a...efgh"
    assert "sk-ant-api03-abcdefgh" in entry.header("x-api-key") + entry.header("authorization")
    assert entry.header("proxy-authorization") == ""


def test_a_streamed_answer_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=50, messages=user("Tell me a story")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    entry = provider.ledger.one(model)
    assert text == "".join(f"word{number} " for number in range(8))
    assert final.usage.output_tokens == entry.usage["output_tokens"]
    assert_matches(daemon.record(model), entry, prompt="Tell me a story")


def test_asynchronous_calls_side_by_side_are_recorded_one_by_one(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(api_key="sk-ant-x", max_retries=0) as client:

            async def one(number: int) -> str:
                options = {"model": f"{model}-{number:02}", "max_tokens": 9, "messages": user(f"question {number}")}
                if number % 2:
                    return (await client.messages.create(**options)).id
                async with client.messages.stream(**options) as stream:
                    return (await stream.get_final_message()).id

            return await asyncio.gather(*(one(number) for number in range(12)))

    ids = asyncio.run(ask())
    records = {record["model"]: record for record in daemon.records(model, count=12)}
    for number, response_id in enumerate(ids):
        entry = provider.ledger.one(f"{model}-{number:02}")
        assert entry.response_id == response_id
        assert_matches(records[entry.model], entry, prompt=f"question {number}")


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_tool_loop_is_recorded_with_every_parallel_call(
    daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool
) -> None:
    model += "+tools=3"
    messages: list = user("What is the weather?")

    def ask():
        if not streamed:
            return client.messages.create(model=model, max_tokens=50, messages=messages, tools=[WEATHER, CLOCK])
        with client.messages.stream(model=model, max_tokens=50, messages=messages, tools=[WEATHER, CLOCK]) as stream:
            return stream.get_final_message()

    first = ask()
    assert first.stop_reason == "tool_use"
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.name for call in calls] == ["get_weather", "get_time", "get_weather"]
    messages.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]})
    messages.append(
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]}
    )
    second = ask()
    assert second.stop_reason == "end_turn"

    records = daemon.records(model, count=2)
    for record, entry, prompt in zip(records, provider.ledger.entries(model), ["What is the weather?", None], strict=True):
        assert_matches(record, entry, prompt=prompt)
    assert tools_of(records[0]) == [(call.name, call.id, call.input) for call in calls]
    assert tools_of(records[1]) == []


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_thinking_is_recorded_as_reasoning(daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool) -> None:
    options = {
        "model": model,
        "max_tokens": 2048,
        "messages": user("Think"),
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    if streamed:
        with client.messages.stream(**options) as stream:
            stream.get_final_message()
    else:
        client.messages.create(**options)
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Think")
    assert [row["metadata"]["source"] for row in record["model_thoughts"]] == ["thinking"]


@pytest.mark.parametrize(
    ("status", "error", "error_type"),
    [
        (400, anthropic.BadRequestError, "bad_request"),
        (401, anthropic.AuthenticationError, "unauthorized"),
        (429, anthropic.RateLimitError, "rate_limited"),
        (529, anthropic.InternalServerError, "overloaded"),
    ],
)
def test_an_error_status_reaches_the_client_and_the_record(
    daemon: Daemon, provider: FakeProvider, client, model: str, status: int, error: type[Exception], error_type: str
) -> None:
    model += f"+status={status}"
    with pytest.raises(error, match=f"the fake provider says {status}"):
        client.messages.create(model=model, max_tokens=50, messages=user("Hi"))
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Hi", outcome="upstream_error")
    assert record["error_type"] == error_type
    assert f"the fake provider says {status}" in record["error_message"]


def test_retries_of_the_sdk_are_recorded_each(daemon: Daemon, model: str) -> None:
    model += "+status=529"
    with anthropic.Anthropic(api_key="k", max_retries=1) as client, pytest.raises(anthropic.InternalServerError):
        client.messages.create(model=model, max_tokens=50, messages=user("Hi"))
    assert len(daemon.records(model, count=2)) == 2


def test_an_error_inside_a_stream_is_recorded_with_the_usage_so_far(
    daemon: Daemon, provider: FakeProvider, client, model: str
) -> None:
    model += "+error=5"
    with (
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(model=model, max_tokens=5, messages=user("Hi")) as stream,
    ):
        stream.get_final_message()
    record, entry = daemon.record(model), provider.ledger.one(model)
    assert record["outcome"] == "upstream_error"
    assert record["error_type"] == "overloaded"
    assert record["error_message"] == "Overloaded"
    assert record["token_usages"][0]["input_tokens"] == entry.usage["input_tokens"]


def test_other_endpoints_pass_through_and_are_counted(daemon: Daemon, client, model: str) -> None:
    before = daemon.metrics()
    assert client.messages.count_tokens(model=model, messages=user("Hi")).input_tokens == 42
    assert [listed.id for listed in client.models.list()] == ["claude-fake"]
    name = "coder_ai_gateway_passthrough_total"
    daemon.wait_for_metric(before.total(name, provider="anthropic") + 2, name, provider="anthropic")
    assert daemon.stored(model) == []
