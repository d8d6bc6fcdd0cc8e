"""Provider conversations as files, and what a parser must make of each, however its bytes are cut.

`tests/transcripts/<provider>/<api>/<case>/` holds `request.json` (the request's body; `request.bytes` where it is no JSON),
`response.bytes` (the response's body without content coding), `SOURCE` (which page it is made from) and `expected.yaml`:

    head: {path, content_type}                  of the request, where they are not the API's usual ones
    response: {status, content_type, headers, fill}
                                                fill: {marker, character, count} stands for bytes too many to keep in a file
    request: {model, streaming, prompt, correlating_tool_call_id, client_session_id, metadata, anomaly}
    result: {response_id, response_model, text_characters, thoughts, tools (each with `open`, `truncated` where it is so), usage, usage_final, usage_metadata, finish_reason,
             ended, complete, error, unknown, malformed}

What is left out has its default. `anomaly` and `malformed` are parts of the message. The expectations are written by hand from
the documentation, never taken from a parser's output.
"""

import dataclasses
import functools
import pathlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from aiproxyd.exceptions import WireError
from aiproxyd.model.events import (
    ProviderErrorReported,
    ReasoningDelta,
    ReasoningEnded,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UnknownEvent,
    UsageReported,
)
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.api import Api, RequestFacts, ResponseParser
from aiproxyd.providers.apis import APIS

ROOT = pathlib.Path(__file__).resolve().parent.parent / "transcripts"

MAX_EVENT_BYTES = 16 << 20
"""Limit of one event, and of a document, in these runs."""

_APIS = {
    "messages": ("anthropic.messages", "/v1/messages"),
    "chat_completions": ("openai.chat_completions", "/v1/chat/completions"),
    "responses": ("openai.responses", "/v1/responses"),
    "completions": ("openai.completions", "/v1/completions"),
    "embeddings": ("openai.embeddings", "/v1/embeddings"),
    "images": ("openai.images", "/v1/images/generations"),
    "transcriptions": ("openai.transcriptions", "/v1/audio/transcriptions"),
    "speech": ("openai.speech", "/v1/audio/speech"),
    "generate_content": ("google.generate_content", "/v1beta/models/gemini-2.5-pro:generateContent"),
    "interactions": ("google.interactions", "/v1beta/interactions"),
    "embed_content": ("google.embed_content", "/v1beta/models/gemini-embedding-001:embedContent"),
    "invoke_model": ("bedrock.invoke_model", "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"),
    "converse": ("bedrock.converse", "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"),
    "chat": ("cohere.chat", "/v2/chat"),
    "embed": ("cohere.embed", "/v2/embed"),
}
"""By folder: the API's name, and the path of its requests."""

# libyaml's where there is one: every process of the tests reads hundreds of files when it begins.
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_REQUEST_DEFAULTS: dict[str, Any] = {
    "model": "",
    "streaming": False,
    "prompt": None,
    "correlating_tool_call_id": "",
    "client_session_id": "",
    "metadata": {},
    "anomaly": "",
}
RESULT_DEFAULTS: dict[str, Any] = {
    "response_id": "",
    "response_model": "",
    "text_characters": 0,
    "thoughts": [],
    "tools": [],
    "usage": None,
    "usage_final": False,
    "usage_metadata": {},
    "finish_reason": "",
    "ended": False,
    "complete": False,
    "error": None,
    "unknown": {},
    "malformed": "",
}


@dataclasses.dataclass(frozen=True)
class Transcript:
    """One conversation."""

    provider: str
    api_folder: str
    case: str
    path: str
    request_content_type: str
    request: bytes
    response: bytes
    status: int
    content_type: str
    headers: dict[str, str]
    expected_request: dict[str, Any]
    expected_result: dict[str, Any]
    source: str

    @property
    def name(self) -> str:
        """`provider/api/case`."""
        return f"{self.provider}/{self.api_folder}/{self.case}"

    @property
    def api(self) -> Api:
        """The API that reads it."""
        return APIS[_APIS[self.api_folder][0]]

    @property
    def is_stream(self) -> bool:
        """Whether the response is streamed, by its content type as the tap sees it."""
        content_type = self.content_type.partition(";")[0]
        return content_type in self.api.stream_types or (self.api.streams_json and self.expected_request["streaming"])

    def parser(self, max_bytes: int = MAX_EVENT_BYTES) -> ResponseParser:
        """Return a fresh parser of the response."""
        return self.api.stream_parser(max_bytes) if self.is_stream else self.api.document_parser(max_bytes)

    def head(self) -> RequestHead:
        """Return the head of the request."""
        return RequestHead("POST", self.path, Headers([("content-type", self.request_content_type)]))

    def head_events(self) -> list[StreamEvent]:
        """Return what the head of the response says."""
        headers = [("content-type", self.content_type), *self.headers.items()]
        return [] if self.api.read_head is None else self.api.read_head(ResponseHead(self.status, Headers(headers)))


@functools.cache
def transcripts(api_folder: str | None = None) -> tuple[Transcript, ...]:
    """Return every transcript, or those of one API, in the order of their names."""
    folders = sorted(path.parent for path in ROOT.glob("*/*/*/expected.yaml"))
    return tuple(_load(folder) for folder in folders if api_folder in {None, folder.parent.name})


def _load(folder: pathlib.Path) -> Transcript:
    expected = yaml.load((folder / "expected.yaml").read_text("utf-8"), _SAFE_LOADER)
    about, head = expected.get("response", {}), expected.get("head", {})
    response = (folder / "response.bytes").read_bytes()
    if fill := about.get("fill"):
        response = response.replace(fill["marker"].encode(), fill["character"].encode() * fill["count"])
    unknown = set(expected.get("request", {})) - set(_REQUEST_DEFAULTS) | set(expected.get("result", {})) - set(RESULT_DEFAULTS)
    if unknown:
        raise ValueError(f"{folder}: expected.yaml has unknown keys {sorted(unknown)}")
    return Transcript(
        provider=folder.parent.parent.name,
        api_folder=folder.parent.name,
        case=folder.name,
        path=head.get("path", _APIS[folder.parent.name][1]),
        request_content_type=head.get("content_type", "application/json"),
        request=next(folder.glob("request.*")).read_bytes(),
        response=response,
        status=about.get("status", 200),
        content_type=about.get("content_type", "text/event-stream"),
        headers=about.get("headers", {}),
        expected_request=_REQUEST_DEFAULTS | expected.get("request", {}),
        expected_result=RESULT_DEFAULTS | expected.get("result", {}),
        source=(folder / "SOURCE").read_text("utf-8"),
    )


def bytewise(data: bytes) -> list[bytes]:
    """Return `data` one byte at a time."""
    return [data[at : at + 1] for at in range(len(data))]


def random_split(data: bytes, seed: int) -> list[bytes]:
    """Return `data` cut at random places, some pieces empty. Equal seeds cut equally."""
    source = random.Random(seed)
    cuts = sorted(source.randrange(len(data) + 1) for _ in range(source.randrange(1, 60)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def parse(parser: ResponseParser, chunks: Iterable[bytes]) -> tuple[list[StreamEvent], WireError | None]:
    """Return what a parser makes of a whole body, and the error it ends with."""
    events: list[StreamEvent] = []
    try:
        for chunk in chunks:
            events += parser.feed(chunk)
        events += parser.close()
    except WireError as exc:
        return events, exc
    return events, None


def result(transcript: Transcript, chunks: Iterable[bytes] | None = None) -> tuple[dict[str, Any], list[StreamEvent]]:
    """Return the summary of a response, cut as `chunks` (default: whole), and its events."""
    if transcript.status >= 400:
        events: list[StreamEvent] = [transcript.api.read_error(transcript.status, transcript.response)]
        return summary(events, None, ""), events
    events, failure = parse(transcript.parser(), [transcript.response] if chunks is None else chunks)
    events = transcript.head_events() + events
    return summary(events, failure, transcript.expected_result["malformed"]), events


def summary(events: Iterable[StreamEvent], failure: WireError | None, malformed: str) -> dict[str, Any]:
    """Return `events` folded into the shape of `result` in `expected.yaml`; an error that holds `malformed` shows as that."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": []}
    thoughts: dict[int, dict[str, Any]] = {}
    tools: dict[int, dict[str, Any]] = {}
    unknown: Counter[str] = Counter()
    ended_tools: set[int] = set()
    for event in events:
        match event:
            case ResponseStarted():
                found["response_id"] = event.response_id or found["response_id"]
                found["response_model"] = event.response_model or found["response_model"]
            case TextDelta():
                found["text_characters"] += event.characters
            case ReasoningDelta():
                if event.index not in thoughts:
                    thoughts[event.index] = {"source": str(event.source), "content": ""}
                    found["thoughts"].append(thoughts[event.index])
                assert thoughts[event.index]["source"] == event.source
                thoughts[event.index]["content"] += event.text
            case ReasoningEnded():
                pass
            case ToolCallStarted():
                assert event.index not in tools, "a tool call starts once"
                facts = {"name": event.name, "kind": str(event.kind), "arguments": ""}
                tools[event.index] = facts | {
                    key: value
                    for key, value in (("call_id", event.call_id), ("item_id", event.item_id), ("server_url", event.server_url))
                    if value
                }
                found["tools"].append(tools[event.index])
            case ToolCallDelta():
                tools[event.index]["arguments"] += event.fragment
            case ToolCallEnded():
                assert event.index not in ended_tools, "a tool call ends once"
                ended_tools.add(event.index)
                if event.truncated:
                    tools[event.index]["truncated"] = True
            case UsageReported():
                found["usage"] = _plain(event.usage)
                found["usage_final"] = event.final
                found["usage_metadata"] = dict(event.metadata)
            case ProviderErrorReported():
                assert found["error"] is None, "an error is reported once"
                found["error"] = {"type": str(event.error_type), "message": event.message}
            case UnknownEvent():
                unknown[event.kind] += 1
            case ResponseEnded():
                assert not found["ended"], "a response ends once"
                found |= {"ended": True, "complete": event.complete, "finish_reason": event.finish_reason}
    for index, tool in tools.items():
        if index not in ended_tools and not found["ended"]:
            tool["open"] = True
    found["unknown"] = dict(unknown)
    if failure is not None:
        found["malformed"] = malformed if malformed and malformed in str(failure) else str(failure)
    return found


def _plain(usage: TokenUsage) -> dict[str, Any]:
    figures = {name: getattr(usage, name) for name in usage.__struct_fields__}
    return {name: value for name, value in figures.items() if value or name == "extra"}


def request_summary(facts: RequestFacts, anomaly: str) -> dict[str, Any]:
    """Return `facts` in the shape of `request` in `expected.yaml`; an anomaly that holds `anomaly` shows as that."""
    return {
        "model": facts.request_model,
        "streaming": facts.streaming,
        "prompt": facts.prompt,
        "correlating_tool_call_id": facts.correlating_tool_call_id,
        "client_session_id": facts.client_session_id,
        "metadata": dict(facts.metadata),
        "anomaly": anomaly if anomaly and anomaly in facts.anomaly else facts.anomaly,
    }


def splits(data: bytes, *, seeds: int = 5) -> Iterator[tuple[str, list[bytes]]]:
    """Yield ways to cut `data`, each with a name; one byte at a time only where that stays quick."""
    if len(data) <= 64 << 10:
        yield "byte by byte", bytewise(data)
    for seed in range(seeds):
        yield f"random split {seed}", random_split(data, seed)
