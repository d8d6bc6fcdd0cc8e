"""Errors inside streams of Bedrock."""

import pytest

from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.model.outcome import ErrorType
from aiproxyd.providers.bedrock_errors import read_error, stream_error
from aiproxyd.wire.aws_event_stream import AwsEventMessage

SILENT = "the provider reported an error without a message"


@pytest.mark.parametrize(
    ("headers", "payload", "error_type", "message"),
    [
        ({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"m"}', "rate_limited", "m"),
        ({":message-type": "exception", ":exception-type": "modelTimeoutException"}, b"", "timeout", SILENT),
        ({":message-type": "exception", ":exception-type": "validationException"}, b"[1]", "bad_request", SILENT),
        ({":message-type": "exception", ":exception-type": "newException"}, b'{"message":"m"}', "unknown", "m"),
        ({":message-type": "exception"}, b"{", "unknown", SILENT),
        ({":message-type": "error", ":error-code": "throttlingException", ":error-message": "m"}, b"", "rate_limited", "m"),
        ({":message-type": "error"}, b"", "unknown", SILENT),
    ],
)
def test_a_message_that_is_an_error(headers: dict[str, str], payload: bytes, error_type: str, message: str) -> None:
    assert stream_error(AwsEventMessage(headers, payload)) == ProviderErrorReported(ErrorType(error_type), message)


@pytest.mark.parametrize(
    "headers", [{}, {":message-type": "event", ":event-type": "chunk"}, {":message-type": "initial-response"}]
)
def test_a_message_that_is_none(headers: dict[str, str]) -> None:
    assert stream_error(AwsEventMessage(headers, b"{}")) is None


def test_an_error_with_a_status() -> None:
    assert read_error(403, b'{"Message":"denied"}') == ProviderErrorReported(ErrorType.UNAUTHORIZED, "denied")
