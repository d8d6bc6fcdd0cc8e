"""The `google-genai` SDK, unchanged, by environment variables alone: the Gemini API, streamed and not, with tools; and Code Assist."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches, tools_of
from tests.support.fake_provider import FakeProvider

pytestmark = pytest.mark.usefixtures("_environment")

TOOLS = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(
                name=name,
                parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
            )
            for name in ("get_weather", "get_news")
        ]
    )
]


@pytest.fixture
def _environment(daemon: Daemon, through: Callable[[Daemon], None]) -> None:
    through(daemon)


@pytest.fixture
def client():
    with genai.Client(api_key="AIzaSyA-abcdefghijklmnopqrstuvwxyz0123") as client:
        yield client


def config(**fields) -> types.GenerateContentConfig:
    automatic = types.AutomaticFunctionCallingConfig(disable=True)
    return types.GenerateContentConfig(automatic_function_calling=automatic, **fields)


THINKING = types.ThinkingConfig(include_thoughts=True)


def test_a_blocking_answer_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    answer = client.models.generate_content(model=model, contents="How are you? 🦊", config=config(thinking_config=THINKING))
    entry, record = provider.ledger.one(model), daemon.record(model)
    assert answer.response_id == entry.response_id
    assert answer.usage_metadata.thoughts_token_count in {entry.usage["reasoning_output_tokens"], None}
    assert_matches(record, entry, prompt="How are you? 🦊")
    assert record["provider"] == "google"
    assert record["client"] == "Google GenAI SDK"


def test_a_streamed_answer_is_recorded(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    model += "+events=20"
    chunks = list(client.models.generate_content_stream(model=model, contents="Hi", config=config(thinking_config=THINKING)))
    entry = provider.ledger.one(model)
    assert "alt=sse" in entry.target
    assert chunks[-1].usage_metadata.total_token_count == sum(
        entry.usage[name] for name in ("input_tokens", "cache_read_input_tokens", "output_tokens")
    )
    assert_matches(daemon.record(model), entry, prompt="Hi")


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_a_tool_loop_is_recorded_with_every_parallel_call(
    daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool
) -> None:
    model += "+tools=2"
    contents: list = [types.Content(role="user", parts=[types.Part(text="News and weather?")])]
    options = {"model": model, "contents": contents, "config": config(tools=TOOLS)}
    ask = client.models.generate_content_stream if streamed else lambda **options: [client.models.generate_content(**options)]
    chunks = list(ask(**options))
    calls = [call for chunk in chunks for call in chunk.function_calls or ()]
    assert [call.name for call in calls] == ["get_weather", "get_news"]
    contents.append(types.Content(role="model", parts=[types.Part(function_call=call) for call in calls]))
    answers = [types.FunctionResponse(id=call.id, name=call.name, response={"result": "fine"}) for call in calls]
    contents.append(types.Content(role="user", parts=[types.Part(function_response=answer) for answer in answers]))
    assert client.models.generate_content(**options).candidates[0].finish_reason == types.FinishReason.STOP

    records = daemon.records(model, count=2)
    for record, entry, prompt in zip(records, provider.ledger.entries(model), ["News and weather?", None], strict=True):
        assert_matches(record, entry, prompt=prompt)
    assert tools_of(records[0]) == [(call.name, call.id or "", call.args) for call in calls]


def test_asynchronous_streams_side_by_side_are_recorded_one_by_one(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    async def ask() -> None:
        async with genai.Client(api_key="AIzaSyA-abcdefghijklmnopqrstuvwxyz0123").aio as client:

            async def one(number: int) -> None:
                stream = await client.models.generate_content_stream(model=f"{model}-{number}", contents=f"question {number}")
                _ = [chunk async for chunk in stream]

            await asyncio.gather(*(one(number) for number in range(6)))

    asyncio.run(ask())
    for record in daemon.records(model, count=6):
        entry = provider.ledger.one(record["model"])
        assert_matches(record, entry, prompt=f"question {record['model'].rpartition('-')[2]}")


@pytest.mark.parametrize(
    ("status", "error_type"), [(400, "bad_request"), (403, "unauthorized"), (429, "rate_limited"), (503, "overloaded")]
)
def test_an_error_status_reaches_the_client_and_the_record(
    daemon: Daemon, provider: FakeProvider, client, model: str, status: int, error_type: str
) -> None:
    model += f"+status={status}"
    with pytest.raises(errors.APIError, match=f"the fake provider says {status}") as raised:
        client.models.generate_content(model=model, contents="Hi")
    assert raised.value.code == status
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Hi", outcome="upstream_error")
    assert record["error_type"] == error_type


def test_an_error_inside_a_stream_is_recorded(daemon: Daemon, client, model: str) -> None:
    model += "+error=4"
    with pytest.raises(errors.APIError, match="The model is overloaded"):
        list(client.models.generate_content_stream(model=model, contents="Hi"))
    record = daemon.record(model)
    assert record["outcome"] == "upstream_error"
    assert record["error_type"] == "overloaded"


@pytest.mark.parametrize("ending", ["cut", "reset"])
def test_a_stream_that_breaks_keeps_the_usage_so_far(
    daemon: Daemon, provider: FakeProvider, client, model: str, ending: str
) -> None:
    model += f"+{ending}=4"
    with pytest.raises(Exception, match=r".+"):  # which one is the SDK's business
        list(client.models.generate_content_stream(model=model, contents="Hi"))
    record, entry = daemon.record(model), provider.ledger.one(model)
    assert record["outcome"] == "upstream_aborted"
    assert record["usage_source"] == "reported"
    assert record["token_usages"][0]["input_tokens"] == entry.usage["input_tokens"] + entry.usage["cache_read_input_tokens"]


def test_embeddings_are_recorded_with_their_usage(daemon: Daemon, provider: FakeProvider, client, model: str) -> None:
    answer = client.models.embed_content(model=model, contents="x")
    assert answer.embeddings[0].values == [0.25, -0.5, 0.125]
    assert_matches(daemon.record(model), provider.ledger.one(model))


@pytest.mark.parametrize("streamed", [False, True], ids=["blocking", "streamed"])
def test_interactions_are_recorded(daemon: Daemon, provider: FakeProvider, client, model: str, streamed: bool) -> None:
    model += "+tools=2"
    tools = [
        {"type": "function", "name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
        for name in ("get_weather", "get_news")
    ]
    answer = client.interactions.create(model=model, input="News and weather?", tools=tools, stream=streamed)
    if streamed:
        assert [event.event_type for event in answer][-1] == "interaction.completed"
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="News and weather?")


def through_proxy(daemon: Daemon) -> httpx.Client:
    import ssl

    return httpx.Client(proxy=daemon.proxy_url("alice"), verify=ssl.create_default_context(cafile=str(daemon.ca_file)))


@pytest.mark.parametrize("form", ["array", "sse"])
def test_a_stream_of_vertex_is_recorded_in_either_form(daemon: Daemon, provider: FakeProvider, model: str, form: str) -> None:
    path = f"/v1/projects/p/locations/us-central1/publishers/google/models/{model}:streamGenerateContent"
    query = "?alt=sse" if form == "sse" else ""
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    with through_proxy(daemon) as http:
        answer = http.post(f"https://us-central1-aiplatform.googleapis.com{path}{query}", json=body)
    if form == "array":
        assert len(json.loads(answer.content)) == 8
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="Hi")


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent?alt=sse"])
def test_code_assist_is_recorded_with_its_session(daemon: Daemon, provider: FakeProvider, model: str, method: str) -> None:
    asked = {"contents": [{"role": "user", "parts": [{"text": "Fix it."}]}], "session_id": "0c1b2d3e-session"}
    body = {"model": model, "project": "acme", "user_prompt_id": "p1", "request": asked}
    headers = {"user-agent": "GeminiCLI/0.61.0/gemini-2.5-pro (linux; x64)", "authorization": "Bearer ya29.a0AfB_byC"}
    with through_proxy(daemon) as http:
        http.post(f"https://cloudcode-pa.googleapis.com/v1internal:{method}", json=body, headers=headers)
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Fix it.")
    assert record["client"] == "Gemini CLI"
    assert record["client_session_id"] == "0c1b2d3e-session"
