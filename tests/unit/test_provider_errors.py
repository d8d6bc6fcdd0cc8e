import json

import pytest

from aiproxyd.config.schema import ProviderType
from aiproxyd.key_pool import Exhausted
from aiproxyd.model.outcome import ErrorType
from aiproxyd.provider_errors import ErrorShape, answer, breaker_open, keys_exhausted, shape_of
from aiproxyd.providers.errors import read_error


def test_an_open_breaker_is_said_in_coder_s_bodies():
    made = breaker_open(ErrorShape.ANTHROPIC, 30)
    assert made.status_code == 503
    assert dict(made.headers) == {"content-type": "application/json", "retry-after": "30"}
    assert json.loads(made.body) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "circuit breaker is open"},
    }
    assert json.loads(breaker_open(ErrorShape.OPENAI, 30).body) == {
        "error": {"message": "circuit breaker is open", "type": "server_error", "code": "service_unavailable"}
    }
    assert json.loads(breaker_open(ErrorShape.GENERIC, 30).body) == {"error": "circuit breaker is open"}


def test_a_pool_at_its_limit_says_when_to_come_back_and_a_rejected_one_does_not():
    limited = keys_exhausted(Exhausted("rate_limited", 429, 7), ErrorShape.ANTHROPIC)
    assert limited.status_code == 429
    assert dict(limited.headers)["retry-after"] == "7"
    assert json.loads(limited.body)["error"]["type"] == "rate_limit_error"
    rejected = keys_exhausted(Exhausted("auth_failed", 502, 0), ErrorShape.OPENAI)
    assert rejected.status_code == 502
    assert "retry-after" not in dict(rejected.headers)
    assert json.loads(rejected.body)["error"]["code"] == "bad_gateway"


@pytest.mark.parametrize(
    ("provider_type", "api", "shape"),
    [
        ("anthropic", "", ErrorShape.ANTHROPIC),
        ("copilot", "anthropic.messages", ErrorShape.ANTHROPIC),
        ("copilot", "", ErrorShape.OPENAI),
        ("bedrock", "bedrock.converse", ErrorShape.AWS),
        ("bedrock", "openai.chat_completions", ErrorShape.OPENAI),
        ("google", "openai.chat_completions", ErrorShape.OPENAI),
        ("google", "", ErrorShape.GOOGLE),
        ("cohere", "cohere.chat", ErrorShape.MESSAGE),
        ("unheard-of", "unheard.of", ErrorShape.GENERIC),
    ],
)
def test_the_api_decides_before_the_provider(provider_type, api, shape):
    assert shape_of(provider_type, api) is shape


@pytest.mark.parametrize("kind", ProviderType)
def test_every_type_of_provider_has_a_shape(kind):
    assert shape_of(kind.value) is not ErrorShape.GENERIC


@pytest.mark.parametrize("shape", ErrorShape)
@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (401, ErrorType.UNAUTHORIZED),
        (403, ErrorType.UNAUTHORIZED),
        (429, ErrorType.RATE_LIMITED),
        (502, ErrorType.SERVER_ERROR),
        (503, ErrorType.OVERLOADED),
        (504, ErrorType.TIMEOUT),
    ],
)
def test_our_own_reader_of_errors_understands_every_shape(shape, status, error_type):
    read = read_error(status, answer(status, "what is wrong", shape).body, provider_type="anthropic")
    assert read.message == "what is wrong"
    # Shapes without a word for it leave it at the class of the status.
    assert read.error_type in {error_type, ErrorType.SERVER_ERROR if status > 500 else error_type}
