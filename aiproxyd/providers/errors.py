"""Error objects of providers, in every shape they come, to `ProviderErrorReported`. Total: an error about an error helps nobody.

Shapes seen: Anthropic `{"type":"error","error":{"type","message"}}`; OpenAI `{"error":{"message","type","code"}}`, with a numeric
code at OpenRouter; `{"error":"text"}`; flat `{"message","code","type"}` at Mistral and in the Responses API's `error` event;
`{"detail":…}` at ChatGPT's backend; `{"error":{"code","message","status"}}` at Google, also in a list; `{"message"}` or `{"Message"}` at
AWS; plain text and HTML from what stands in front of them.

Source:
    https://platform.claude.com/docs/en/api/errors
    https://developers.openai.com/api/docs/guides/error-codes
"""

import http
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.model.outcome import MAX_ERROR_MESSAGE_BYTES, ErrorType, error_type_of
from aiproxyd.providers.decoding import decode

_ANY: Final = msgspec.json.Decoder()

# Words of `error.type` and `error.code`. What is not here is told by the HTTP status, or is unknown.
_TYPES: Final[dict[str, ErrorType]] = {
    "invalid_request_error": ErrorType.BAD_REQUEST,
    "not_found_error": ErrorType.BAD_REQUEST,
    "request_too_large": ErrorType.BAD_REQUEST,
    "billing_error": ErrorType.BAD_REQUEST,
    "invalid_prompt": ErrorType.BAD_REQUEST,
    "context_length_exceeded": ErrorType.BAD_REQUEST,
    "model_not_found": ErrorType.BAD_REQUEST,
    "content_filter": ErrorType.BAD_REQUEST,
    "bio_policy": ErrorType.BAD_REQUEST,
    "cyber_policy": ErrorType.BAD_REQUEST,
    "misalignment_policy_violation": ErrorType.BAD_REQUEST,
    "data_residency_mismatch": ErrorType.BAD_REQUEST,
    "authentication_error": ErrorType.UNAUTHORIZED,
    "permission_error": ErrorType.UNAUTHORIZED,
    "invalid_api_key": ErrorType.UNAUTHORIZED,
    "token_expired": ErrorType.UNAUTHORIZED,
    "rate_limit_error": ErrorType.RATE_LIMITED,
    "rate_limit_exceeded": ErrorType.RATE_LIMITED,
    "insufficient_quota": ErrorType.RATE_LIMITED,
    "usage_limit_reached": ErrorType.RATE_LIMITED,
    "too_many_requests": ErrorType.RATE_LIMITED,
    "overloaded_error": ErrorType.OVERLOADED,
    "server_is_overloaded": ErrorType.OVERLOADED,
    "slow_down": ErrorType.OVERLOADED,
    "api_error": ErrorType.SERVER_ERROR,
    "server_error": ErrorType.SERVER_ERROR,
    "internal_error": ErrorType.SERVER_ERROR,
    "internal_server_error": ErrorType.SERVER_ERROR,
    "timeout_error": ErrorType.TIMEOUT,
    "timeout": ErrorType.TIMEOUT,
    "vector_store_timeout": ErrorType.TIMEOUT,
    # Google's, from gRPC.
    "invalid_argument": ErrorType.BAD_REQUEST,
    "failed_precondition": ErrorType.BAD_REQUEST,
    "out_of_range": ErrorType.BAD_REQUEST,
    "not_found": ErrorType.BAD_REQUEST,
    "unauthenticated": ErrorType.UNAUTHORIZED,
    "permission_denied": ErrorType.UNAUTHORIZED,
    "resource_exhausted": ErrorType.RATE_LIMITED,
    "unavailable": ErrorType.OVERLOADED,
    "internal": ErrorType.SERVER_ERROR,
    "deadline_exceeded": ErrorType.TIMEOUT,
    # Bedrock's.
    "validationexception": ErrorType.BAD_REQUEST,
    "throttlingexception": ErrorType.RATE_LIMITED,
    "modelnotreadyexception": ErrorType.OVERLOADED,
    "serviceunavailableexception": ErrorType.OVERLOADED,
    "modeltimeoutexception": ErrorType.TIMEOUT,
    "modelstreamerrorexception": ErrorType.SERVER_ERROR,
    "modelerrorexception": ErrorType.SERVER_ERROR,
    "internalserverexception": ErrorType.SERVER_ERROR,
}

# A status of these classes says less than a word that says more.
_VAGUE: Final = (ErrorType.BAD_REQUEST, ErrorType.SERVER_ERROR)
_PRECISE: Final = (ErrorType.OVERLOADED, ErrorType.RATE_LIMITED, ErrorType.TIMEOUT, ErrorType.UNAUTHORIZED)

_MAX_TEXT_CHARACTERS: Final = 200
"""A body that is no JSON is quoted up to this, and only its first line."""


def read_error(status_code: int, body: bytes, *, provider_type: str) -> ProviderErrorReported:
    """Return the error of a response with an error status. Total.

    Args:
        status_code: Of the response, 400 or more.
        body: Its body, decoded, maybe cut.
        provider_type: As `error_type_of` takes it.
    """
    try:
        value = decode(_ANY, body)
    except MalformedBody:
        value = _first_line(body)
    message, word_type = _message_and_type(value)
    error_type = error_type_of(status_code, provider_type=provider_type)
    if error_type is None or (error_type in _VAGUE and word_type in _PRECISE):
        error_type = word_type or ErrorType.UNKNOWN
    return ProviderErrorReported(error_type, message or _phrase(status_code))


def reported_error(value: object) -> ProviderErrorReported:
    """Return the error that an already decoded error object, or the object around it, reports inside a response. Total."""
    message, word_type = _message_and_type(value)
    return ProviderErrorReported(word_type or ErrorType.UNKNOWN, message or "the provider reported an error without a message")


def decoded_error(raw: bytes | msgspec.Raw) -> ProviderErrorReported:
    """As `reported_error`, for JSON text."""
    try:
        return reported_error(decode(_ANY, raw))
    except MalformedBody:
        return reported_error(_first_line(bytes(raw)))


def _message_and_type(value: object) -> tuple[str, ErrorType | None]:
    """Return the text and the class of an error object, however deep it stands (three levels are the deepest seen)."""
    words: list[object] = []
    message = ""
    for _ in range(4):
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, str):
            message = value or message
            break
        if not isinstance(value, dict):
            break
        words[:0] = [value.get("code"), value.get("status"), value.get("type")]
        text = next((value[key] for key in ("message", "msg", "Message") if isinstance(value.get(key), str)), "")
        message = text or message
        value = value.get("error") or value.get("detail") or value.get("errors")
    types = [found for word in words if (found := _type_of_word(word)) is not None]
    # Google's `code` repeats the HTTP status, and its `status` says more.
    word_type = next((found for found in types if found in _PRECISE), types[0] if types else None)
    return _cut(message), word_type


def _type_of_word(word: object) -> ErrorType | None:
    if isinstance(word, int) and not isinstance(word, bool):
        return error_type_of(word, provider_type="") if 400 <= word < 600 else None
    if not isinstance(word, str):
        return None
    if word.isascii() and word.isdigit() and len(word) == 3:
        return _type_of_word(int(word))
    return _TYPES.get(word.lower())


def _first_line(body: bytes) -> str:
    line = body.decode("utf-8", "replace").strip().partition("\n")[0].strip()
    # A cut document and a page for people say nothing that the status does not.
    return "" if line.startswith(("<", "{", "[")) or not line.isprintable() else line[:_MAX_TEXT_CHARACTERS]


def _phrase(status_code: int) -> str:
    try:
        return http.HTTPStatus(status_code).phrase
    except ValueError:
        return f"status {status_code}"


def _cut(text: str) -> str:
    if len(text) * 4 <= MAX_ERROR_MESSAGE_BYTES:
        return text
    return text.encode("utf-8", "replace")[:MAX_ERROR_MESSAGE_BYTES].decode("utf-8", "ignore")
