"""Every SDK there is a promise for, through the daemon: plain, streamed, with tools, over HTTP and over a WebSocket."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import boto3  # type: ignore[import-untyped]
import httpx
import openai
from google import genai
from google.genai import types

from tests.accounting.table import Row
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider
from tests.support.websocket_client import connect

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
_EVENTS = "+events=5"


def run(daemon: Daemon, provider: FakeProvider) -> list[Row]:
    """Let every client ask its questions through `daemon`; return a row each."""
    rows = []
    with _environment(daemon):
        for label, ask in _CLIENTS:
            prefix = f"account-{len(rows)}-"
            ask(prefix, daemon)
            rows.append(compared(label, prefix, daemon, provider))
    return rows


def compared(label: str, prefix: str, daemon: Daemon, provider: FakeProvider) -> Row:
    """Return the row of the requests whose model begins with `prefix`; waits for their records.

    Records are told apart by the provider's response id, where an answer had one, and by their model.
    """
    entries = [entry for entry in provider.ledger.entries(prefix) if entry.method in {"POST", "WS"}]

    def stored() -> list[dict[str, Any]]:
        return [record for record in daemon.stored(prefix) if record["ended_at"]]

    try:
        records = eventually(lambda: (found := stored()) and len(found) >= len(entries) and found, f"records of {label}")
    except TimeoutError:
        records = stored()
    row = Row(label)
    left = list(records)
    for entry in entries:
        mine = [
            record
            for record in left
            if record["model"] == entry.model
            and (not record["provider_response_id"] or record["provider_response_id"] == entry.response_id)
        ][:1]
        for record in mine:
            left.remove(record)
        row.compare(f"{entry.method} {entry.target} {entry.model}", entry.usage, mine)
    row.recorded += len(left)
    row.complaints += [f"{record['model']}: a record without a request" for record in left]
    return row


@contextmanager
def _environment(daemon: Daemon) -> Iterator[None]:
    """Sends this process through `daemon` for a while."""
    added = {
        name: value
        for name, value in daemon.client_environment().items()
        if name in {"HTTPS_PROXY", "HTTP_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
    } | {"AWS_EC2_METADATA_DISABLED": "true"}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _anthropic(prefix: str, daemon: Daemon) -> None:
    tools: Any = [{"name": name, "input_schema": _SCHEMA} for name in ("weather", "news")]
    asked: Any = {"max_tokens": 2000, "messages": [{"role": "user", "content": "Hi"}]}
    with anthropic.Anthropic(api_key="sk-ant-api03-0123456789", max_retries=0) as client:
        client.messages.create(model=f"{prefix}plain", **asked)
        client.messages.create(model=f"{prefix}tools+tools=2", tools=tools, **asked)
        for name in ("streamed", "second", "third"):
            with client.messages.stream(
                model=f"{prefix}{name}{_EVENTS}", thinking={"type": "enabled", "budget_tokens": 1024}, **asked
            ) as stream:
                stream.get_final_message()


def _openai_chat(prefix: str, daemon: Daemon) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": _SCHEMA}}]
    messages: Any = [{"role": "user", "content": "Hi"}]
    with openai.OpenAI(api_key="sk-proj-0123456789", max_retries=0) as client:
        client.chat.completions.create(model=f"{prefix}plain", messages=messages)
        client.chat.completions.create(model=f"{prefix}tools+tools=2", messages=messages, tools=tools)
        for number in range(3):
            list(
                client.chat.completions.create(
                    model=f"{prefix}streamed-{number}{_EVENTS}",
                    messages=messages,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )


def _openai_responses(prefix: str, daemon: Daemon) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": _SCHEMA, "strict": False}]
    with openai.OpenAI(api_key="sk-proj-0123456789", max_retries=0) as client:
        client.responses.create(model=f"{prefix}plain", input="Hi")
        client.responses.create(model=f"{prefix}tools+tools=2", input="Hi", tools=tools)
        for number in range(3):
            list(
                client.responses.create(
                    model=f"{prefix}streamed-{number}{_EVENTS}", input="Hi", stream=True, reasoning={"effort": "low"}
                )
            )


def _openai_embeddings(prefix: str, daemon: Daemon) -> None:
    with openai.OpenAI(api_key="sk-proj-0123456789", max_retries=0) as client:
        for number in range(3):
            client.embeddings.create(model=f"{prefix}{number}", input="Hi")


def _openai_responses_websocket(prefix: str, daemon: Daemon) -> None:
    previous = None
    with connect("wss://api.openai.com/v1/responses", daemon) as websocket:
        for number in range(5):
            message = {"type": "response.create", "model": f"{prefix}{number}{_EVENTS}", "previous_response_id": previous}
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi " * 9}]}
            websocket.send(json.dumps(message | {"input": [item], "generate": bool(number)}))
            while (heard := json.loads(websocket.recv()))["type"] != "response.completed":
                pass
            previous = heard["response"]["id"]


def _openai_realtime(prefix: str, daemon: Daemon) -> None:
    url = f"wss://api.openai.com/v1/realtime?model={prefix}voice"
    with connect(url, daemon) as websocket:
        sound = {"input": {"transcription": {"model": f"{prefix}transcribe"}}}
        session = {"type": "realtime", "model": f"{prefix}voice", "audio": sound}
        websocket.send(json.dumps({"type": "session.update", "session": session}))
        for _ in range(3):
            websocket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            websocket.send(json.dumps({"type": "response.create"}))
            while json.loads(websocket.recv())["type"] != "response.done":
                pass


def _google(prefix: str, daemon: Daemon) -> None:
    with genai.Client(api_key="AIzaSyA-0123456789") as client:
        config = types.GenerateContentConfig(automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True))
        client.models.generate_content(model=f"{prefix}plain", contents="Hi", config=config)
        for number in range(3):
            list(
                client.models.generate_content_stream(model=f"{prefix}streamed-{number}{_EVENTS}", contents="Hi", config=config)
            )


def _bedrock(prefix: str, daemon: Daemon) -> None:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLEEXAMPLE",
        aws_secret_access_key="secret",
        verify=str(daemon.ca_file),
    )
    messages = [{"role": "user", "content": [{"text": "Hi"}]}]
    body = json.dumps(
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    )
    client.converse(modelId=f"{prefix}converse", messages=messages)
    list(client.converse_stream(modelId=f"{prefix}stream{_EVENTS}", messages=messages)["stream"])
    client.invoke_model(modelId=f"{prefix}anthropic.invoke", body=body)["body"].read()
    list(client.invoke_model_with_response_stream(modelId=f"{prefix}anthropic.invoked{_EVENTS}", body=body)["body"])
    client.close()


def _httpx_zstd(prefix: str, daemon: Daemon) -> None:
    """As Codex on a plan: the request in zstd."""
    import zstandard

    with httpx.Client() as client:
        for number in range(3):
            content = json.dumps({"model": f"{prefix}{number}{_EVENTS}", "stream": True, "input": "Hi"}).encode()
            client.post(
                "https://chatgpt.com/backend-api/codex/responses",
                content=zstandard.compress(content),
                headers={"content-encoding": "zstd", "content-type": "application/json"},
            )


_CLIENTS: tuple[tuple[str, Callable[[str, Daemon], None]], ...] = (
    ("anthropic messages", _anthropic),
    ("openai chat completions", _openai_chat),
    ("openai responses", _openai_responses),
    ("openai embeddings", _openai_embeddings),
    ("websockets, openai responses", _openai_responses_websocket),
    ("websockets, openai realtime", _openai_realtime),
    ("google-genai generate content", _google),
    ("boto3 converse and invoke", _bedrock),
    ("httpx, chatgpt responses in zstd", _httpx_zstd),
)
