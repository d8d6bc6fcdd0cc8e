"""Statuses map to Coder's error classes."""

import pytest

from aiproxyd.model.outcome import ErrorType, error_type_of


@pytest.mark.parametrize(
    ("status_code", "provider_type", "expected"),
    [
        (200, "anthropic", None),
        (304, "openai", None),
        (400, "openai", ErrorType.BAD_REQUEST),
        (404, "openai", ErrorType.BAD_REQUEST),
        (413, "anthropic", ErrorType.BAD_REQUEST),
        (418, "openai", ErrorType.BAD_REQUEST),
        (401, "openai", ErrorType.UNAUTHORIZED),
        (403, "openai", ErrorType.UNAUTHORIZED),
        (408, "openai", ErrorType.TIMEOUT),
        (429, "openai", ErrorType.RATE_LIMITED),
        (529, "anthropic", ErrorType.OVERLOADED),
        (529, "openai", ErrorType.SERVER_ERROR),
        (500, "anthropic", ErrorType.SERVER_ERROR),
        (503, "openai", ErrorType.SERVER_ERROR),
    ],
)
def test_a_status_has_its_class(status_code, provider_type, expected):
    assert error_type_of(status_code, provider_type=provider_type) is expected
