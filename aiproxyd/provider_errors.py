"""Answers that this proxy gives instead of a provider, in the shape of that provider's own errors, so that SDKs understand them. Pure.

Coder's bodies where it has some. The reading of providers' errors is in `providers.errors`.
"""

import enum
from typing import Final

import msgspec

from aiproxyd.key_pool import Exhausted

BREAKER_OPEN: Final = "circuit breaker is open"
"""Coder's words."""


class ErrorShape(enum.Enum):
    """How a provider writes an error."""

    ANTHROPIC = enum.auto()
    OPENAI = enum.auto()
    GOOGLE = enum.auto()
    AWS = enum.auto()
    MESSAGE = enum.auto()
    """`{"message"}`, as at Cohere."""
    GENERIC = enum.auto()
    """`{"error"}`."""


class Answer(msgspec.Struct, frozen=True):
    """A whole response."""

    status_code: int
    headers: tuple[tuple[str, str], ...]
    """With `content-type`; without what frames the message."""
    body: bytes


_SHAPE_OF_API: Final = {
    "anthropic": ErrorShape.ANTHROPIC,
    "openai": ErrorShape.OPENAI,
    "google": ErrorShape.GOOGLE,
    "bedrock": ErrorShape.AWS,
    "cohere": ErrorShape.MESSAGE,
}
_SHAPE_OF_TYPE: Final = {
    "anthropic": ErrorShape.ANTHROPIC,
    "google": ErrorShape.GOOGLE,
    "bedrock": ErrorShape.AWS,
    "cohere": ErrorShape.MESSAGE,
    **dict.fromkeys(
        (
            "openai",
            "chatgpt",
            "copilot",
            "azure",
            "openrouter",
            "vercel",
            "mistral",
            "groq",
            "deepseek",
            "xai",
            "together",
            "perplexity",
            "openai-compat",
        ),
        ErrorShape.OPENAI,
    ),
}

_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OPENAI_TYPES: Final = {
    400: ("invalid_request_error", "invalid_request"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "timeout"),
}
_GOOGLE_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_AWS_TYPES: Final = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
}


def shape_of(provider_type: str, api: str = "") -> ErrorShape:
    """Return how errors of an endpoint look: those of its API, else of its provider.

    Args:
        provider_type: As in the configuration.
        api: The endpoint's API, such as `anthropic.messages`; empty for a passthrough.
    """
    shape = _SHAPE_OF_API.get(api.partition(".")[0])
    return shape or _SHAPE_OF_TYPE.get(provider_type, ErrorShape.GENERIC)


def answer(status_code: int, message: str, shape: ErrorShape, *, retry_after_seconds: int = 0) -> Answer:
    """Return the answer that says `message`.

    Args:
        status_code: 400 or more.
        message: For people; no secret.
        shape: From `shape_of`.
        retry_after_seconds: For `Retry-After`; 0 for none.
    """
    headers = [("content-type", "application/json")]
    if retry_after_seconds:
        headers.append(("retry-after", str(retry_after_seconds)))
    body: object
    match shape:
        case ErrorShape.ANTHROPIC:
            word = _ANTHROPIC_TYPES.get(status_code, "api_error")
            body = {"type": "error", "error": {"type": word, "message": message}}
        case ErrorShape.OPENAI:
            word, code = _OPENAI_TYPES.get(status_code, ("server_error", "server_error"))
            body = {"error": {"message": message, "type": word, "code": code}}
        case ErrorShape.GOOGLE:
            body = {"error": {"code": status_code, "message": message, "status": _GOOGLE_STATUSES.get(status_code, "INTERNAL")}}
        case ErrorShape.AWS:
            headers.append(("x-amzn-errortype", _AWS_TYPES.get(status_code, "InternalServerException")))
            body = {"message": message}
        case ErrorShape.MESSAGE:
            body = {"message": message}
        case ErrorShape.GENERIC:
            body = {"error": message}
    return Answer(status_code, tuple(headers), msgspec.json.encode(body))


def breaker_open(shape: ErrorShape, retry_after_seconds: int) -> Answer:
    """Return the 503 of a request that a breaker refused."""
    return answer(503, BREAKER_OPEN, shape, retry_after_seconds=retry_after_seconds)


def keys_exhausted(exhausted: Exhausted, shape: ErrorShape) -> Answer:
    """Return the 429 or 502 of a request for which no key was left."""
    message = (
        "every key of this provider has reached its rate limit"
        if exhausted.status_code == 429
        else "no key of this provider is accepted; ask whoever runs the proxy"
    )
    return answer(exhausted.status_code, message, shape, retry_after_seconds=exhausted.retry_after_seconds)
