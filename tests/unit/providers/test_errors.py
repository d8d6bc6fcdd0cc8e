"""Error bodies in every shape."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.model.outcome import ErrorType
from aiproxyd.providers.errors import decoded_error, read_error, reported_error


@pytest.mark.parametrize(
    ("status", "provider_type", "body", "error_type", "message"),
    [
        (400, "anthropic", {"error": {"type": "invalid_request_error", "message": "m"}}, "bad_request", "m"),
        (404, "anthropic", {"error": {"type": "not_found_error", "message": "m"}}, "bad_request", "m"),
        (413, "openai", {}, "bad_request", None),
        (403, "openai", {"error": {"message": "m"}}, "unauthorized", "m"),
        (408, "openai", b"", "timeout", "Request Timeout"),
        (429, "openai", {"error": {"message": "m", "code": 500}}, "rate_limited", "m"),
        (529, "anthropic", b"", "overloaded", "status 529"),
        (529, "openai", b"", "server_error", "status 529"),
        (500, "anthropic", {"error": {"type": "overloaded_error", "message": "m"}}, "overloaded", "m"),
        (504, "anthropic", {"error": {"type": "timeout_error", "message": "m"}}, "timeout", "m"),
        (400, "openai", {"error": {"message": "m", "code": "rate_limit_exceeded"}}, "rate_limited", "m"),
        (400, "openai", {"error": {"message": "m", "code": "429"}}, "rate_limited", "m"),
        (400, "openai", {"error": {"message": "m", "code": True}}, "bad_request", "m"),
        (400, "openai", {"error": "plain"}, "bad_request", "plain"),
        (400, "openai", {"message": "outer", "error": {"message": "inner"}}, "bad_request", "inner"),
        (422, "openai", {"detail": [{"loc": ["body"], "msg": "field required"}]}, "bad_request", "field required"),
        (400, "openai", {"detail": "d"}, "bad_request", "d"),
        (400, "openai", {"errors": [{"message": "e"}]}, "bad_request", "e"),
        (400, "openai", {"error": {"error": {"error": {"error": {"message": "deep"}}}}}, "bad_request", "Bad Request"),
        (400, "openai", [], "bad_request", "Bad Request"),
        (400, "openai", 7, "bad_request", "Bad Request"),
        (400, "openai", {"error": {"message": 7}}, "bad_request", "Bad Request"),
        (503, "openai", b"no healthy upstream", "server_error", "no healthy upstream"),
        (503, "openai", b"\x00\x01", "server_error", "Service Unavailable"),
        (503, "openai", b"<!doctype html>", "server_error", "Service Unavailable"),
        (503, "openai", b'{"error": {"mess', "server_error", "Service Unavailable"),
        (200, "openai", {"error": {"message": "m"}}, "unknown", "m"),
        (503, "google", {"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}, "overloaded", "m"),
        (500, "google", {"error": {"code": 500, "message": "m", "status": "INTERNAL"}}, "server_error", "m"),
        (400, "google", [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "bad_request", "m"),
        (403, "bedrock", {"Message": "m"}, "unauthorized", "m"),
    ],
)
def test_an_error_status_and_its_body(status: int, provider_type: str, body: Any, error_type: str, message: str | None) -> None:
    found = read_error(status, body if isinstance(body, bytes) else json.dumps(body).encode(), provider_type=provider_type)
    assert found.error_type == error_type
    assert message is None or found.message == message


def test_a_long_message_is_cut_to_whole_characters() -> None:
    found = read_error(400, json.dumps({"error": {"message": "\u20ac" * 1000}}).encode(), provider_type="openai")
    assert found.message == "\u20ac" * 341
    assert len(found.message.encode()) <= 1024


def test_an_error_inside_a_response() -> None:
    assert reported_error({"type": "overloaded_error", "message": "m"}) == ProviderErrorReported(ErrorType.OVERLOADED, "m")
    assert decoded_error(msgspec.Raw(b'{"code":"TIMEOUT","message":"m"}')) == ProviderErrorReported(ErrorType.TIMEOUT, "m")
    assert decoded_error(b"{").error_type is ErrorType.UNKNOWN
    assert reported_error(None).message


@given(
    st.integers(100, 999),
    st.binary()
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["error", "detail", "errors", "message", "code", "type"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_no_body_is_too_strange(status: int, body: bytes) -> None:
    found = read_error(status, body, provider_type="openai")
    assert found.message
    assert len(found.message.encode("utf-8", "replace")) <= 1024
