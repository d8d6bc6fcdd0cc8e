"""How an interception can end, and what its figures rest on."""

import enum


class Outcome(enum.StrEnum):
    """The one way an interception ended."""

    COMPLETED = "completed"
    """A successful response arrived whole and was understood."""
    UPSTREAM_ERROR = "upstream_error"
    """The provider answered with an error status, or reported an error inside a stream, or could not be reached."""
    CLIENT_ABORTED = "client_aborted"
    """The client left before the response ended."""
    UPSTREAM_ABORTED = "upstream_aborted"
    """The provider closed or reset the connection before the response ended."""
    PARSE_FAILED = "parse_failed"
    """The response was forwarded whole, but its bytes could not be understood."""
    REFUSED = "refused"
    """We answered instead of the provider."""
    INTERRUPTED = "interrupted"
    """The proxy ended first: a worker died or a drain ran out of time."""


class UsageSource(enum.StrEnum):
    """Where the token figures of an interception come from."""

    REPORTED = "reported"
    """The provider said so."""
    ESTIMATED = "estimated"
    """The provider was silent; worked out from the length of the text."""
    NONE = "none"
    """No tokens were used, or nothing is known."""


class ErrorType(enum.StrEnum):
    """The class of a failed interception's error; Coder's vocabulary."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"


# A stored error message is cut to this many bytes of UTF-8, as Coder's column is.
MAX_ERROR_MESSAGE_BYTES = 1024


def error_type_of(status_code: int, *, provider_type: str) -> ErrorType | None:
    """Return the error class of an HTTP status, or None below 400."""
    if status_code < 400:
        return None
    match status_code:
        case 401 | 403:
            return ErrorType.UNAUTHORIZED
        case 408:
            return ErrorType.TIMEOUT
        case 429:
            return ErrorType.RATE_LIMITED
        case 529 if provider_type == "anthropic":
            return ErrorType.OVERLOADED
        case _:
            return ErrorType.BAD_REQUEST if status_code < 500 else ErrorType.SERVER_ERROR
