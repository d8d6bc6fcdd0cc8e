"""Stories of one request, told through the tap with the real parsers: bytes in, the whole list of observations out."""

import gzip
import json

import brotli
import msgspec
import pytest
import zstandard

from aiproxyd.mitm.decrypted import AbortedBy, TapSettings
from aiproxyd.mitm.interception import MAX_ERROR_BODY_BYTES, UNKNOWN_MODEL
from aiproxyd.mitm.tap import RequestTap, Tap, unseen
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.events import ThoughtSource, ToolKind
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    Observation,
    ResponseProgressed,
    ThoughtRecorded,
    ToolCalled,
    UnknownEventsSeen,
)
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from tests.support.observing import KeptJournal, SteppedReporter, connection_to
from tests.support.wire_formats import converse_stream, gemini_array, gemini_chunks

CHAT = connection_to("api.openai.com", "openai", (Endpoint("/v1/chat/completions", "openai.chat_completions"),))
MESSAGES = connection_to("api.anthropic.com", "anthropic", (Endpoint("/v1/messages", "anthropic.messages"),))

CHAT_REQUEST = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "What is love?"}]}).encode()
CHAT_RESPONSE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4.1-2025-04-14",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Baby, don't hurt me."}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 12,
            "total_tokens": 62,
            "prompt_tokens_details": {"cached_tokens": 10},
        },
    }
).encode()

MESSAGES_REQUEST = json.dumps(
    {
        "model": "claude-sonnet-4-5",
        "stream": True,
        "max_tokens": 100,
        "metadata": {"user_id": "user_abc_account__session_54c1eb09-7f2b"},
        "messages": [{"role": "user", "content": "List the files."}],
    }
).encode()


def sse(*events: dict[str, object]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


MESSAGE_START = sse(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5-20250929",
            "content": [],
            "usage": {"input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 1},
        },
    }
)
THINKING = sse(
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_stop", "index": 0},
)
TOOL_START = sse(
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"path":'}},
)
TOOL_END = sse(
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ' "."}'}},
    {"type": "content_block_stop", "index": 1},
)
MESSAGE_END = sse(
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 61}},
    {"type": "message_stop"},
)
MESSAGES_STREAM = MESSAGE_START + THINKING + TOOL_START + TOOL_END + MESSAGE_END


class Story:
    """One tap with a journal that is looked at."""

    def __init__(self, settings: TapSettings | None = None) -> None:
        self.journal = KeptJournal()
        self.reporter = SteppedReporter(self.journal)
        self.tap = Tap(self.reporter, settings or TapSettings())

    def chat(self, body: bytes = CHAT_REQUEST, *, whole: bool = True, **fields: str) -> RequestTap:
        return self._begin(CHAT, "/v1/chat/completions", body, whole=whole, **fields)

    def messages(self, body: bytes = MESSAGES_REQUEST, *, whole: bool = True, **fields: str) -> RequestTap:
        return self._begin(MESSAGES, "/v1/messages?beta=true", body, whole=whole, **fields)

    def _begin(self, connection: object, target: str, body: bytes, *, whole: bool, **fields: str) -> RequestTap:
        headers = Headers([(name.replace("_", "-"), value) for name, value in fields.items()])
        request = self.tap.open(connection, RequestHead("POST", target, headers))  # type: ignore[arg-type]
        request.request_data(body)
        if whole:
            request.request_end()
        return request

    def one(self, kind: type[Observation]) -> Observation:
        (found,) = [observation for observation in self.journal.observations if isinstance(observation, kind)]
        return found

    @property
    def ended(self) -> InterceptionEnded:
        ended = self.one(InterceptionEnded)
        assert isinstance(ended, InterceptionEnded)
        return ended

    @property
    def described(self) -> InterceptionDescribed:
        described = self.one(InterceptionDescribed)
        assert isinstance(described, InterceptionDescribed)
        return described


def head(status: int = 200, content_type: str = "application/json", **fields: str) -> ResponseHead:
    others = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return ResponseHead(status, Headers([("Content-Type", content_type), *others] if content_type else others))


EVENT_STREAM = "text/event-stream; charset=utf-8"


def test_the_client_s_token_of_this_proxy_is_no_hint_of_a_key() -> None:
    story = Story()
    connection = msgspec.structs.replace(CHAT, token="aip_0123456789abcdef")
    headers = Headers([("authorization", "Bearer aip_0123456789abcdef")])
    story.tap.open(connection, RequestHead("POST", "/v1/chat/completions", headers))
    started = story.one(InterceptionStarted)
    assert isinstance(started, InterceptionStarted)
    assert (started.credential_kind, started.credential_hint) == ("byok", "")


def test_a_document_is_told_in_three_observations() -> None:
    story = Story()
    request = story.chat(
        whole=False,
        user_agent="AsyncOpenAI/Python 3.52.0",
        authorization="Bearer sk-proj-0123456789abcdef",
        x_client_request_id="r-1",
    )
    story.reporter.seconds += 1
    request.request_end()
    story.reporter.seconds += 2
    request.response_head(head())
    story.reporter.seconds += 4
    request.response_data(CHAT_RESPONSE)
    request.response_end()
    at = 1_700_000_100.0
    assert story.journal.observations == [
        InterceptionStarted(
            at=at,
            interception_id="id-1",
            provider="openai",
            provider_type="openai",
            api="openai.chat_completions",
            method="POST",
            route="/v1/chat/completions",
            host="api.openai.com",
            principal_id="0c5f7a5e-0000-5000-8000-000000000001",
            principal_name="ada",
            principal_groups=("research",),
            client="OpenAI SDK",
            client_version="3.52.0",
            user_agent="AsyncOpenAI/Python 3.52.0",
            credential_kind="byok",
            credential_hint="sk-p...cdef",
            client_request_id="r-1",
            connection_id="connection-1",
        ),
        InterceptionDescribed(
            at=at + 1,
            interception_id="id-1",
            request_model="gpt-4.1",
            prompt="What is love?",
            has_prompt=True,
            metadata={"initiated_by": "human"},
        ),
        InterceptionEnded(
            at=at + 7,
            interception_id="id-1",
            outcome=Outcome.COMPLETED,
            usage_source=UsageSource.REPORTED,
            usage=story.ended.usage,
            status_code=200,
            response_id="chatcmpl-1",
            response_model="gpt-4.1-2025-04-14",
            finish_reason="stop",
            request_bytes=len(CHAT_REQUEST),
            response_bytes=len(CHAT_RESPONSE),
            first_byte_seconds=3.0,
            first_output_seconds=None,
            duration_seconds=7.0,
            held_seconds=0.0,
            tap_seconds=0.0,
            output_characters=20,
            metadata=story.ended.metadata,
        ),
    ]
    usage = story.ended.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (40, 10, 12)


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_a_stream_is_told_with_its_thoughts_and_tools_however_it_is_cut(size: int) -> None:
    story = Story()
    request = story.messages(user_agent="claude-cli/2.1.329 (external, sdk-cli)")
    story.reporter.seconds += 1
    request.response_head(head(content_type=EVENT_STREAM))
    story.reporter.seconds += 1
    for start in range(0, len(MESSAGES_STREAM), size):
        request.response_data(MESSAGES_STREAM[start : start + size])
    request.response_end()
    assert story.described.client_session_id == "54c1eb09-7f2b"
    thought = story.one(ThoughtRecorded)
    assert thought == ThoughtRecorded(
        at=thought.at, interception_id="id-1", position=0, source=ThoughtSource.THINKING, content="Hm."
    )
    tool = story.one(ToolCalled)
    assert tool == ToolCalled(
        at=tool.at,
        interception_id="id-1",
        tool="ls",
        position=0,
        call_id="toolu_1",
        tool_kind=ToolKind.FUNCTION,
        arguments='{"path": "."}',
        response_id="msg_1",
    )
    ended = story.ended
    assert story.journal.observations[-1] is ended
    assert (ended.outcome, ended.finish_reason, ended.usage_source) == ("completed", "tool_use", "reported")
    assert (ended.usage.input_tokens, ended.usage.cache_read_input_tokens, ended.usage.output_tokens) == (5, 100, 61)
    assert (ended.first_byte_seconds, ended.first_output_seconds) == (1.0, 2.0)
    assert "usage" not in ended.metadata


def test_the_first_usage_of_a_stream_is_kept_in_case_we_die() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGE_START)
    progressed = story.journal.observations[-1]
    assert isinstance(progressed, ResponseProgressed)
    assert (progressed.response_id, progressed.response_model) == ("msg_1", "claude-sonnet-4-5-20250929")
    assert progressed.usage.total_input_tokens == 105
    request.response_data(THINKING + TOOL_START + TOOL_END + MESSAGE_END)
    request.response_end()
    story.one(ResponseProgressed)


CODERS = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "gzip, zstd": lambda body: zstandard.compress(gzip.compress(body)),
    "identity": bytes,
}


@pytest.mark.parametrize("coding", CODERS)
def test_codings_of_both_directions_are_undone_and_bytes_are_those_of_the_wire(coding: str) -> None:
    story = Story()
    body, answer = CODERS[coding](CHAT_REQUEST), CODERS[coding](CHAT_RESPONSE)
    request = story.chat(body, content_encoding=coding)
    request.response_head(head(content_encoding=coding))
    for index in range(len(answer)):
        request.response_data(answer[index : index + 1])
    request.response_end()
    assert (story.described.prompt, story.described.anomaly) == ("What is love?", "")
    ended = story.ended
    assert (ended.outcome, ended.usage.output_tokens, ended.anomaly) == ("completed", 12, "")
    assert (ended.request_bytes, ended.response_bytes) == (len(body), len(answer))


@pytest.mark.parametrize(
    ("connection", "status", "body", "error_type", "message"),
    [
        (
            "messages",
            401,
            b'{"type":"error","error":{"type":"authentication_error","message":"bad key"}}',
            "unauthorized",
            "bad key",
        ),
        ("messages", 529, b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', "overloaded", "busy"),
        ("chat", 400, b'{"error":{"message":"no","type":"invalid_request_error"}}', "bad_request", "no"),
        ("chat", 429, b'{"error":{"message":"slow","type":"tokens"}}', "rate_limited", "slow"),
        ("chat", 503, b"<html>upstream unavailable", "server_error", "Service Unavailable"),
        ("chat", 500, b"", "server_error", "Internal Server Error"),
    ],
)
def test_an_error_status_ends_as_the_providers_error(
    connection: str, status: int, body: bytes, error_type: str, message: str
) -> None:
    story = Story()
    request = getattr(story, connection)()
    request.response_head(head(status))
    request.response_data(body)
    request.response_end()
    ended = story.ended
    assert (ended.outcome, ended.status_code, ended.usage_source) == ("upstream_error", status, "none")
    assert (ended.error_type, ended.error_message) == (error_type, message)
    assert story.described.prompt


def test_an_errors_body_is_read_up_to_its_limit_and_coded_ones_too() -> None:
    story = Story()
    request = story.chat()
    request.response_head(head(500, content_encoding="gzip"))
    body = gzip.compress(b"x" * 10 * MAX_ERROR_BODY_BYTES)
    request.response_data(body)
    request.response_data(b"more")
    request.response_end()
    assert (story.ended.outcome, story.ended.response_bytes) == ("upstream_error", len(body) + 4)


def test_an_error_inside_a_stream_keeps_what_was_used() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    request.response_data(MESSAGE_START + sse(error))
    request.response_end()
    ended = story.ended
    assert (ended.outcome, ended.error_type, ended.error_message) == ("upstream_error", ErrorType.OVERLOADED, "Overloaded")
    assert (ended.usage_source, ended.usage.total_input_tokens) == ("reported", 105)
    assert ended.metadata["usage"] == "partial"


@pytest.mark.parametrize(
    ("by", "outcome"),
    [
        (AbortedBy.CLIENT, "client_aborted"),
        (AbortedBy.UPSTREAM, "upstream_aborted"),
        (AbortedBy.PROXY, "interrupted"),
    ],
)
def test_a_stream_that_is_cut_keeps_its_usage_its_thoughts_and_half_a_tool_call(by: AbortedBy, outcome: str) -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGE_START + THINKING + TOOL_START)
    request.abort(by, "cut here")
    tool = story.one(ToolCalled)
    assert isinstance(tool, ToolCalled)
    assert (tool.arguments, tool.truncated) == ('{"path":', True)
    story.one(ThoughtRecorded)
    ended = story.ended
    assert (ended.outcome, ended.status_code, ended.error_message) == (outcome, 200, "cut here")
    assert (ended.usage_source, ended.usage.total_input_tokens, ended.metadata["usage"]) == ("reported", 105, "partial")


def test_a_client_that_leaves_after_the_last_event_has_its_answer() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGES_STREAM)
    request.abort(AbortedBy.CLIENT, "the client left")
    assert (story.ended.outcome, story.ended.error_type, story.ended.error_message) == ("completed", None, "")


def test_a_stream_that_ends_cleanly_without_its_last_event_was_aborted_upstream() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGE_START + THINKING + b"event: content_block_delta\ndata: {")
    request.response_end()
    assert (story.ended.outcome, story.ended.status_code) == ("upstream_aborted", 200)


def test_a_coded_stream_that_is_cut_inside_its_coding_says_so() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM, content_encoding="gzip"))
    request.response_data(gzip.compress(MESSAGE_START)[:-8])
    request.response_end()
    assert (story.ended.outcome, story.ended.anomaly) == ("upstream_aborted", "a gzip body was cut")
    assert story.ended.usage_source == "reported"


def test_a_coded_body_without_its_trailer_is_read_nevertheless() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM, content_encoding="gzip"))
    request.response_data(gzip.compress(MESSAGES_STREAM)[:-8])
    request.response_end()
    assert (story.ended.outcome, story.ended.anomaly, story.ended.usage.output_tokens) == ("completed", "", 61)


@pytest.mark.parametrize(
    ("by", "status_code", "expected"),
    [
        (AbortedBy.CLIENT, 0, ("client_aborted", 499, "unknown")),
        (AbortedBy.UPSTREAM, 0, ("upstream_aborted", 502, "unknown")),
        (AbortedBy.UNREACHABLE, 0, ("upstream_error", 502, "server_error")),
        (AbortedBy.PROXY, 0, ("interrupted", 503, "unknown")),
        (AbortedBy.REFUSED, 0, ("refused", 403, "unauthorized")),
        (AbortedBy.REFUSED, 503, ("refused", 503, "server_error")),
    ],
)
def test_an_abort_before_the_response_has_a_status_of_its_own_and_used_nothing(
    by: AbortedBy, status_code: int, expected: tuple[str, int, str]
) -> None:
    story = Story()
    request = story.chat()
    request.abort(by, "why", status_code=status_code)
    ended = story.ended
    assert (ended.outcome, ended.status_code, ended.error_type) == expected
    assert (ended.error_message, ended.usage_source, ended.first_byte_seconds) == ("why", "none", None)
    assert story.described.prompt == "What is love?"


def test_a_request_that_is_aborted_half_way_is_described_by_what_is_known() -> None:
    story = Story()
    request = story.messages(b'{"model":', whole=False, user_agent="claude-cli/2.0.0", x_claude_code_session_id="s-1")
    request.abort(AbortedBy.CLIENT)
    kinds = [type(observation) for observation in story.journal.observations]
    assert kinds == [InterceptionStarted, InterceptionDescribed, InterceptionEnded]
    described = story.described
    assert (described.request_model, described.client_session_id) == (UNKNOWN_MODEL, "s-1")
    assert described.anomaly == "the request was aborted before the request's body was whole"


def test_an_answer_may_be_whole_before_its_request_is() -> None:
    story = Story()
    request = story.chat(whole=False)
    request.response_head(head(413))
    request.response_data(b'{"error":{"message":"too large"}}')
    request.response_end()
    request.request_data(b"more")
    request.request_end()
    assert story.described.anomaly == "the response ended before the request's body was whole"
    assert (story.ended.outcome, story.ended.status_code) == ("upstream_error", 413)
    assert len(story.journal.observations) == 3


def test_a_request_that_is_too_large_is_not_read_and_its_answer_is() -> None:
    story = Story(TapSettings(max_request_body_bytes=20))
    request = story.chat()
    request.response_head(head())
    request.response_data(CHAT_RESPONSE)
    request.response_end()
    described = story.described
    assert (described.anomaly, described.request_model) == ("request body exceeds 20 bytes", UNKNOWN_MODEL)
    assert (described.prompt, described.has_prompt) == (None, False)
    assert (story.ended.outcome, story.ended.request_bytes) == ("completed", len(CHAT_REQUEST))


def test_a_compressed_request_is_limited_by_its_decoded_size() -> None:
    """The attack: a request of some kilobytes that would fill the memory of the worker."""
    story = Story(TapSettings(max_request_body_bytes=1 << 20))
    bomb = zstandard.compress(bytes(32 << 20))
    story.chat(bomb, content_encoding="zstd").abort(AbortedBy.CLIENT)
    assert len(bomb) < 2048
    assert story.described.anomaly == "request body exceeds 1048576 bytes"


@pytest.mark.parametrize(
    ("body", "coding", "anomaly"),
    [
        (b"{", "", "request body: "),
        (b"[1]", "", "request body: "),
        (b"abc", "compress", "request body: content coding 'compress' is not one of gzip, deflate, br, zstd, identity"),
        (b"abc", "gzip", "request body: a gzip body is not gzip data"),
        # Without the time: it would be part of the test's name, and names must not change from second to second.
        (gzip.compress(CHAT_REQUEST, mtime=0)[:-1], "gzip", "request body: a gzip body was cut"),
    ],
)
def test_a_request_that_cannot_be_read_says_why(body: bytes, coding: str, anomaly: str) -> None:
    story = Story()
    request = story.chat(body, **({"content_encoding": coding} if coding else {}))
    request.response_head(head())
    request.response_data(CHAT_RESPONSE)
    request.response_end()
    assert story.described.anomaly.startswith(anomaly)
    assert story.ended.outcome == "completed"


@pytest.mark.parametrize(
    ("content_type", "coding", "body"),
    [
        ("application/json", "", b'{"id": "chatcmpl-1", "choi'),
        ("application/json", "", b""),
        ("text/html", "", b"<html>welcome to the captive portal"),
        ("application/json", "compress", CHAT_RESPONSE),
        ("application/json", "gzip", CHAT_RESPONSE),
        ("application/json", "gzip", gzip.compress(b'{"id": ', mtime=0)[:-8]),
        (EVENT_STREAM, "", b'data: {"choices": [nonsense]}\n\n'),
        (EVENT_STREAM, "", b"data: " + b"x" * 100_000),
    ],
)
def test_a_whole_response_that_cannot_be_read_is_a_parse_failure_and_used_what_is_estimated(
    content_type: str, coding: str, body: bytes
) -> None:
    story = Story(TapSettings(max_response_body_bytes=65536))
    request = story.chat()
    request.response_head(head(content_type=content_type, **({"content_encoding": coding} if coding else {})))
    request.response_data(body)
    request.response_data(b"\n\n")
    request.response_end()
    ended = story.ended
    assert (ended.outcome, ended.status_code, ended.error_type) == ("parse_failed", 200, None)
    assert ended.anomaly
    assert (ended.usage_source, ended.response_bytes) == (UsageSource.ESTIMATED, len(body) + 2)


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
def test_a_stream_that_breaks_keeps_the_usage_it_reported_however_it_is_cut(size: int) -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    body = MESSAGE_START + b"event: message_delta\ndata: nonsense\n\n" + MESSAGE_END
    for start in range(0, len(body), size):
        request.response_data(body[start : start + size])
    request.response_end()
    ended = story.ended
    assert (ended.outcome, ended.usage_source, ended.usage.total_input_tokens) == ("parse_failed", "reported", 105)
    assert ended.anomaly


def test_a_stream_that_breaks_before_its_client_leaves_says_both() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGE_START + b"event: message_delta\ndata: nonsense\n\n")
    request.abort(AbortedBy.CLIENT, "left")
    assert (story.ended.outcome, story.ended.error_message) == ("client_aborted", "left")
    assert story.ended.anomaly


def test_a_completed_reply_without_usage_is_estimated_and_never_zero() -> None:
    story = Story()
    request = story.chat(CHAT_REQUEST.replace(b'"model"', b'"stream": true, "model"'))
    request.response_head(head(content_type=EVENT_STREAM))
    for text in ("Baby, ", "don't ", "hurt me."):
        chunk = {
            "id": "c1",
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}}],
        }
        request.response_data(f"data: {json.dumps(chunk)}\n\n".encode())
    last = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    }
    request.response_data(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
    request.response_end()
    ended = story.ended
    assert (ended.outcome, ended.usage_source) == ("completed", "estimated")
    assert ended.usage.output_tokens == 5
    assert ended.usage.input_tokens > 0


@pytest.mark.parametrize(
    ("content_type", "streaming", "outcome"),
    [
        ("", True, "completed"),
        ("text/plain", True, "completed"),
        ("Text/Event-Stream", False, "completed"),
        ("application/json", True, "parse_failed"),
        ("", False, "parse_failed"),
    ],
)
def test_how_a_body_is_read_follows_its_type_and_where_that_is_silent_the_request(
    content_type: str, streaming: bool, outcome: str
) -> None:
    story = Story()
    request = story.messages(MESSAGES_REQUEST if streaming else MESSAGES_REQUEST.replace(b"true", b"false"))
    request.response_head(head(content_type=content_type))
    request.response_data(MESSAGES_STREAM)
    request.response_end()
    assert story.ended.outcome == outcome


@pytest.mark.parametrize("status", [204, 302, 304])
def test_a_status_without_an_answer_is_completed_and_used_nothing(status: int) -> None:
    story = Story()
    request = story.chat()
    request.response_head(head(status, "text/html"))
    request.response_data(b"<html>moved" if status == 302 else b"")
    request.response_end()
    assert (story.ended.outcome, story.ended.status_code, story.ended.usage_source) == ("completed", status, "none")


@pytest.mark.parametrize("keeps_project", [True, False])
def test_a_request_tells_who_asked_and_where_unless_that_is_switched_off(keeps_project: bool) -> None:
    story = Story(TapSettings(record_project=keeps_project))
    system = "<env>\nWorking directory: /srv/ann/shop\nIs directory a git repo: Yes\n</env>"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "system": system}).encode()
    request = story.messages(body, user_agent="claude-cli/2.1.329", X_Claude_Code_Request_Class="main")
    request.abort(AbortedBy.CLIENT)
    purpose = {"agent": "main", "initiated_by": "human"}
    project = {"project": "shop", "project_directory": "/srv/ann/shop", "project_evidence": "environment_block"}
    assert story.described.metadata == (purpose | project if keeps_project else purpose)


def test_what_switches_protocols_ends_there() -> None:
    story = Story()
    request = story.chat(b"")
    request.response_head(ResponseHead(101, Headers([("Upgrade", "websocket")])))
    request.response_data(b"\x81\x00")
    request.abort(AbortedBy.CLIENT)
    ended = story.ended
    assert (ended.outcome, ended.status_code, ended.usage_source) == ("completed", 101, "none")
    assert ended.metadata == {"transport": "websocket"}


def test_metadata_recording_keeps_no_content_but_that_there_was_some() -> None:
    story = Story(TapSettings(record_content=False))
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGES_STREAM)
    request.response_end()
    assert (story.described.prompt, story.described.has_prompt) == (None, True)
    tool = story.one(ToolCalled)
    assert isinstance(tool, ToolCalled)
    assert (tool.tool, tool.arguments) == ("ls", None)
    assert not any(isinstance(observation, ThoughtRecorded) for observation in story.journal.observations)
    journal = b"".join(map(msgspec.json.encode, story.journal.observations))
    assert not any(secret in journal for secret in (b"List the files", b"Hm.", b"path"))
    assert story.ended.usage.output_tokens == 61


def test_unknown_things_are_counted_before_the_end() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGE_START + sse({"type": "brand_new"}) * 3 + TOOL_START + TOOL_END + MESSAGE_END)
    request.response_end()
    seen = story.journal.observations[-2]
    assert seen == UnknownEventsSeen(
        at=seen.at,
        provider="anthropic",
        api="anthropic.messages",
        counts={"event:brand_new": 3},
        samples={"event:brand_new": '{"type":"brand_new"}'},
    )


def test_missing_documented_fields_are_counted_with_a_sample_of_their_absence() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    start = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-9", "content": ["Secret"]}}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    request.response_data(sse(start, {"type": "ping"}, stop, {"type": "message_stop"}))
    request.response_end()
    seen = story.journal.observations[-2]
    assert isinstance(seen, UnknownEventsSeen)
    assert seen.counts == {"missing:usage": 1}
    assert [json.loads(shape)["type"] for shape in seen.samples["missing:usage"].split("\n")] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    assert "Secret" not in seen.samples["missing:usage"]


def test_a_stream_whose_figures_were_asked_for_and_did_not_come_is_counted() -> None:
    for options, counts in (({}, None), ({"include_usage": True}, {"missing:usage": 1})):
        story = Story()
        body = json.loads(CHAT_REQUEST) | {"stream": True, "stream_options": options}
        request = story.chat(json.dumps(body).encode())
        request.response_head(head(content_type=EVENT_STREAM))
        chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
        request.response_data(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
        request.response_end()
        seen = story.journal.observations[-2]
        assert (seen.counts if isinstance(seen, UnknownEventsSeen) else None) == counts


def test_a_start_is_durable_before_anything_can_leave_and_an_end_before_anybody_looks() -> None:
    story = Story()
    request = story.chat()
    assert story.journal.durable == 1
    request.response_head(head())
    request.response_data(CHAT_RESPONSE)
    request.response_end()
    assert story.journal.durable == len(story.journal.observations) == 3


def test_settings_that_change_are_those_of_later_requests() -> None:
    story = Story()
    before = story.chat(whole=False)
    story.tap.settings = TapSettings(record_content=False)
    before.request_end()
    assert story.described.prompt == "What is love?"
    story.journal.observations.clear()
    story.chat()
    assert (story.described.prompt, story.described.has_prompt) == (None, True)


def test_the_total_of_an_estimate_is_of_input_and_output() -> None:
    story = Story()
    request = story.messages()
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(THINKING)
    request.abort(AbortedBy.UPSTREAM)
    ended = story.ended
    assert ended.usage_source == "estimated"
    assert ended.usage == TokenUsage(input_tokens=ended.usage.input_tokens, output_tokens=1)
    assert ended.usage.input_tokens > 0


BEDROCK = connection_to(
    "bedrock-runtime.us-east-1.amazonaws.com",
    "bedrock",
    (Endpoint("/model/{}/invoke", "bedrock.invoke_model"), Endpoint("/model/{}/converse-stream", "bedrock.converse")),
)
GEMINI = connection_to(
    "generativelanguage.googleapis.com",
    "google",
    (Endpoint("/v1beta/models/{}:streamGenerateContent", "google.generate_content"),),
)


def test_figures_of_the_responses_head_count_where_its_body_has_none() -> None:
    story = Story()
    request = story._begin(BEDROCK, "/model/acme.model-1/invoke", b'{"prompt":"Hi"}', whole=True)
    request.response_head(head(x_amzn_bedrock_input_token_count="7", x_amzn_bedrock_output_token_count="3"))
    request.response_data(b'{"outputs":[{"text":"Hello","stop_reason":"stop"}]}')
    request.response_end()
    assert story.described.request_model == "acme.model-1"
    assert (story.ended.usage_source, story.ended.usage) == (UsageSource.REPORTED, TokenUsage(7, 3))
    assert (story.ended.outcome, story.ended.finish_reason) == (Outcome.COMPLETED, "stop")


def test_an_apis_own_content_type_is_a_stream() -> None:
    story = Story()
    request = story._begin(BEDROCK, "/model/acme.model-1/converse-stream", b"{}", whole=True)
    request.response_head(head(content_type="application/vnd.amazon.eventstream"))
    for piece in converse_stream(text=["Hel", "lo"], usage={"input_tokens": 7, "output_tokens": 3}):
        story.reporter.seconds += 1
        request.response_data(piece)
    request.response_end()
    assert story.ended.usage == TokenUsage(7, 3)
    assert story.ended.first_output_seconds == 2


def test_the_middle_of_a_stream_begins_behind_its_first_output_and_lasts_until_its_end() -> None:
    story = Story()
    request = story.messages()
    assert not request.is_midstream
    request.response_head(head(content_type=EVENT_STREAM))
    request.response_data(MESSAGE_START)
    assert not request.is_midstream
    request.response_data(THINKING)
    assert request.is_midstream
    request.response_data(TOOL_START + TOOL_END + MESSAGE_END)
    assert request.is_midstream
    request.response_end()
    assert not request.is_midstream


def test_what_is_no_stream_has_no_middle() -> None:
    document, passthrough = Story().chat(), Story()._begin(CHAT, "/v1/models", b"", whole=True)
    for request in (document, passthrough, unseen()):
        request.response_head(head())
        request.response_data(CHAT_RESPONSE)
        assert not request.is_midstream


@pytest.mark.parametrize("is_cut", [False, True])
def test_an_array_that_answers_a_streaming_request_is_a_stream(is_cut: bool) -> None:
    story = Story()
    request = story._begin(GEMINI, "/v1beta/models/g:streamGenerateContent", b'{"contents":[]}', whole=True)
    request.response_head(head(content_type="application/json; charset=UTF-8"))
    pieces = gemini_array(gemini_chunks(text=["Hel", "lo"], usage={"input_tokens": 7, "output_tokens": 3}))
    for piece in pieces[:1] if is_cut else pieces:
        story.reporter.seconds += 1
        request.response_data(piece)
    request.response_end()
    assert story.ended.outcome is (Outcome.UPSTREAM_ABORTED if is_cut else Outcome.COMPLETED)
    assert story.ended.first_output_seconds == 1
    assert story.ended.usage.input_tokens == 7


class TickingReporter(SteppedReporter):
    """A reporter whose clock of durations goes on by a second whenever somebody looks."""

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


def test_the_time_that_is_spent_on_a_request_is_told_apart() -> None:
    journal = KeptJournal()
    request = Tap(TickingReporter(journal), TapSettings()).open(CHAT, RequestHead("POST", "/v1/chat/completions", Headers(())))
    request.request_data(CHAT_REQUEST)
    request.request_end()
    request.response_head(head())
    request.held(10.0)
    request.response_data(CHAT_RESPONSE)
    request.response_end()
    ended = journal.observations[-1]
    assert isinstance(ended, InterceptionEnded)
    # The clock goes on by one from the tap's call to the record's being on disk.
    assert ended.held_seconds == 1.0 + 10.0
    # A second each: the request's body, the response's only piece, its end.
    assert ended.tap_seconds == 3.0
