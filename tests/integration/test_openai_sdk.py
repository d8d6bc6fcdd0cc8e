"""The `openai` SDK, unchanged, by environment variables alone: chat completions and responses, streamed and not, with tools."""

import asyncio
import json
from collections.abc import Callable

import openai
import pytest

from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches, tokens_of, tools_of
from tests.support.fake_provider import FakeProvider

pytestmark = pytest.mark.usefixtures("_environment")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "get_news", "parameters": SCHEMA}},
]
RESPONSES_TOOLS = [
    {"type": "function", "name": tool["function"]["name"], "parameters": SCHEMA, "strict": False} for tool in CHAT_TOOLS
]


@pytest.fixture
def _environment(daemon: Daemon, through: Callable[[Daemon], None]) -> None:
    through(daemon)


@pytest.fixture
def client():
    with openai.OpenAI(api_key="sk-proj-abcdefghijklmnop", max_retries=0) as client:
        yield client


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ask(client, api: str, model: str, **options):
    if api == "chat":
        return client.chat.completions.create(model=model, messages=user("Hi"), **options)
    return client.responses.create(model=model, input="Hi", **options)


def test_a_blocking_chat_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=user("How are you? 🦊"))
    record, entry = daemon.record(model), provider.ledger.one(model)
    assert answer.id == entry.response_id
    assert_matches(record, entry, prompt="How are you? 🦊")
    assert record["provider"] == "openai"


def test_a_streamed_chat_with_usage_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=user("Hi"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    entry = provider.ledger.one(model)
    assert chunks[-1].usage.completion_tokens == entry.usage["output_tokens"]
    assert_matches(daemon.record(model), entry, prompt="Hi")


def test_a_streamed_chat_without_usage_is_estimated_and_not_rewritten(
    daemon: Daemon, provider: FakeProvider, client, model: str
) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=user("Hi"), stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Hi")
    assert record["usage_source"] == "estimated"
    assert tokens_of(record)["output_tokens"] > 0


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_chat_tool_loop_is_recorded_with_every_parallel_call(
    daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool
) -> None:
    model += "+tools=2"
    messages: list = user("News and weather?")
    options = {"model": model, "messages": messages, "tools": CHAT_TOOLS}
    if streamed:
        with client.chat.completions.stream(**options, stream_options={"include_usage": True}) as stream:
            first = stream.get_final_completion().choices[0].message
    else:
        first = client.chat.completions.create(**options).choices[0].message
    assert [call.function.name for call in first.tool_calls] == ["get_weather", "get_news"]
    messages.append(first.model_dump(exclude_none=True))
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in first.tool_calls]
    second = client.chat.completions.create(**options)
    assert second.choices[0].finish_reason == "stop"

    records = daemon.records(model, count=2)
    for record, entry, prompt in zip(records, provider.ledger.entries(model), ["News and weather?", None], strict=True):
        assert_matches(record, entry, prompt=prompt)
    assert tools_of(records[0]) == [
        (call.function.name, call.id, json.loads(call.function.arguments)) for call in first.tool_calls
    ]


def test_a_blocking_response_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    answer = client.responses.create(model=model, input="How are you?", reasoning={"effort": "low"})
    entry = provider.ledger.one(model)
    assert answer.id == entry.response_id
    record = daemon.record(model)
    assert_matches(record, entry, prompt="How are you?")
    assert [row["metadata"]["source"] for row in record["model_thoughts"]] == ["reasoning_summary"]


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_responses_tool_loop_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool) -> None:
    model += "+tools=2"
    items: list = user("News and weather?")
    options = {"model": model, "input": items, "tools": RESPONSES_TOOLS, "reasoning": {"effort": "low"}}
    if streamed:
        with client.responses.stream(**options) as stream:
            first = stream.get_final_response()
    else:
        first = client.responses.create(**options)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["get_weather", "get_news"]
    items += [item.model_dump(exclude_none=True) for item in first.output]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "fine"} for call in calls]
    second = client.responses.create(**options)
    assert second.status == "completed"

    records = daemon.records(model, count=2)
    for record, entry, prompt in zip(records, provider.ledger.entries(model), ["News and weather?", None], strict=True):
        assert_matches(record, entry, prompt=prompt)
    assert tools_of(records[0]) == [(call.name, call.call_id, json.loads(call.arguments)) for call in calls]


def test_asynchronous_calls_side_by_side_are_recorded_one_by_one(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(api_key="sk-x", max_retries=0) as client:

            async def one(number: int) -> str:
                name = f"{model}-{number:02}"
                match number % 3:
                    case 0:
                        return (await client.chat.completions.create(model=name, messages=user(f"question {number}"))).id
                    case 1:
                        return (await client.responses.create(model=name, input=f"question {number}")).id
                    case _:
                        async with client.responses.stream(model=name, input=f"question {number}") as stream:
                            return (await stream.get_final_response()).id

            return await asyncio.gather(*(one(number) for number in range(12)))

    ids = asyncio.run(ask())
    records = {record["model"]: record for record in daemon.records(model, count=12)}
    for number, response_id in enumerate(ids):
        entry = provider.ledger.one(f"{model}-{number:02}")
        assert entry.response_id == response_id
        assert_matches(records[entry.model], entry, prompt=f"question {number}")


@pytest.mark.parametrize(
    ("status", "error_type"), [(400, "bad_request"), (401, "unauthorized"), (429, "rate_limited"), (500, "server_error")]
)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_error_status_reaches_the_client_and_the_record(
    daemon: Daemon, provider: FakeProvider, client, model: str, api: str, status: int, error_type: str
) -> None:
    model += f"+status={status}"
    with pytest.raises(openai.APIStatusError, match=f"the fake provider says {status}") as raised:
        ask(client, api, model)
    assert raised.value.status_code == status
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Hi", outcome="upstream_error")
    assert record["error_type"] == error_type


def test_an_error_inside_a_chat_stream_is_recorded(daemon: Daemon, client, model: str) -> None:
    model += "+error=4"
    with pytest.raises(openai.APIError, match="The server had an error"):
        list(ask(client, "chat", model, stream=True))
    record = daemon.record(model)
    assert record["outcome"] == "upstream_error"
    assert record["error_message"] == "The server had an error"


def test_an_error_inside_a_response_stream_is_recorded(daemon: Daemon, client, model: str) -> None:
    model += "+error=4"
    # This SDK hands the error to the program as an event.
    assert list(ask(client, "responses", model, stream=True))[-1].type == "error"
    record = daemon.record(model)
    assert record["outcome"] == "upstream_error"
    assert record["error_message"] == "The server had an error"


def test_embeddings_are_recorded_with_their_usage(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    assert client.embeddings.create(model=model, input="x", encoding_format="float").data[0].embedding == [0.25, -0.5, 0.125]
    assert_matches(daemon.record(model), provider.ledger.one(model))


def test_other_endpoints_pass_through_and_are_counted(daemon: Daemon, client) -> None:
    before = daemon.metrics()
    assert [listed.id for listed in client.models.list()] == ["gpt-fake"]
    name = "coder_ai_gateway_passthrough_total"
    daemon.wait_for_metric(before.total(name, provider="openai") + 1, name, provider="openai")
