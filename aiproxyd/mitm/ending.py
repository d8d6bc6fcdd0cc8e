"""How an interception ended, from facts alone: its outcome, its error and what its token figures rest on. Pure.

The outcome, first rule first:

1. `refused`: we answered.
2. `upstream_error`: the status is 400 or more, or the provider reported an error in its body.
3. `completed`: the provider said that the response is over. It counts even if the client leaves then without reading the rest
   of the framing, as SDKs do at `[DONE]`; `upstream_error` if the provider declared the response failed.
4. By who aborted: `client_aborted`, `upstream_aborted`, `upstream_error` (unreachable, no key), `interrupted`.
5. `parse_failed`: the body arrived whole and could not be read.
6. A stream that ended cleanly without the provider saying so is `upstream_aborted`: with a body that is delimited by the
   connection's end, a cut looks just like that, and no API documents an end without its last event.
7. `completed`: a document that was read, or a status without one.
"""

from typing import Final

from aiproxyd.assemble import Assembly
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.model.outcome import MAX_ERROR_MESSAGE_BYTES, ErrorType, Outcome, UsageSource, error_type_of
from aiproxyd.model.usage import TokenUsage

CHARACTERS_PER_TOKEN: Final = 4
"""For estimates: the providers' own rule of thumb for English text. Code and other languages have fewer characters a token."""

_OUTCOME_OF_ABORT: Final = {
    AbortedBy.CLIENT: Outcome.CLIENT_ABORTED,
    AbortedBy.UPSTREAM: Outcome.UPSTREAM_ABORTED,
    AbortedBy.UNREACHABLE: Outcome.UPSTREAM_ERROR,
    AbortedBy.PROXY: Outcome.INTERRUPTED,
    AbortedBy.REFUSED: Outcome.REFUSED,
    AbortedBy.NO_KEY: Outcome.UPSTREAM_ERROR,
}


def has_answer(status_code: int) -> bool:
    """Return whether a response of this status carries a model's answer: a redirect and a 204 do not, nor does an error."""
    return 200 <= status_code < 300 and status_code != 204


def outcome_of(
    assembly: Assembly, aborted_by: AbortedBy | None, *, has_error: bool, is_streamed: bool, is_unreadable: bool
) -> Outcome:
    """Return the outcome by the rules at the head of this file.

    Args:
        assembly: What was read of the response.
        aborted_by: None when the response is whole by HTTP's framing.
        has_error: Whether the provider answered with an error.
        is_streamed: Whether the response was an event stream.
        is_unreadable: Whether reading failed before the body's end.
    """
    if aborted_by is AbortedBy.REFUSED:
        return Outcome.REFUSED
    if has_error:
        return Outcome.UPSTREAM_ERROR
    if assembly.is_ended:
        return Outcome.COMPLETED if assembly.is_complete else Outcome.UPSTREAM_ERROR
    if aborted_by is not None:
        return _OUTCOME_OF_ABORT[aborted_by]
    if is_unreadable:
        return Outcome.PARSE_FAILED
    return Outcome.UPSTREAM_ABORTED if is_streamed else Outcome.COMPLETED


def error_of(
    outcome: Outcome,
    reported: ProviderErrorReported | None,
    *,
    status_code: int,
    provider_type: str,
    detail: str,
    is_about_keys: bool = False,
) -> tuple[ErrorType | None, str]:
    """Return the error class and a message of at most MAX_ERROR_MESSAGE_BYTES; None and nothing without an error.

    Args:
        outcome: As `outcome_of` found it.
        reported: The provider's own error; what it says is better than what its status says, unless it says nothing.
        status_code: As recorded, our own of an abort included.
        provider_type: As `error_type_of` takes it.
        detail: What is known about an abort.
        is_about_keys: Whether the provider accepts none of our keys, so that the status is one of ours.
    """
    if is_about_keys:
        return ErrorType.RATE_LIMITED if status_code == 429 else ErrorType.UNAUTHORIZED, _cut(detail)
    if outcome is Outcome.COMPLETED or outcome is Outcome.PARSE_FAILED:
        return None, ""
    by_status = error_type_of(status_code, provider_type=provider_type)
    if reported is not None:
        is_silent = reported.error_type is ErrorType.UNKNOWN and by_status is not None
        return by_status if is_silent else reported.error_type, _cut(reported.message)
    if outcome in {Outcome.REFUSED, Outcome.UPSTREAM_ERROR} and by_status is not None:
        return by_status, _cut(detail)
    return ErrorType.UNKNOWN, _cut(detail)


def usage_of(
    assembly: Assembly, outcome: Outcome, *, status_code: int, input_characters: int
) -> tuple[UsageSource, TokenUsage]:
    """Return the token figures and their source.

    Figures that were reported always count, also those of a response that was cut. Without any, an answer that began is taken
    to be charged for, whoever cut it, and estimated; a refusal and an error are not, or nothing is known about it.

    Args:
        assembly: What was read of the response.
        outcome: As `outcome_of` found it.
        status_code: The provider's; 0 when it did not answer.
        input_characters: Length of all text in the request.
    """
    if assembly.usage is not None:
        return UsageSource.REPORTED, assembly.usage
    is_charged = has_answer(status_code) and outcome not in {Outcome.REFUSED, Outcome.UPSTREAM_ERROR}
    if not is_charged or not (input_characters or assembly.output_characters):
        return UsageSource.NONE, TokenUsage()
    return UsageSource.ESTIMATED, TokenUsage(
        input_tokens=_estimated_tokens(input_characters), output_tokens=_estimated_tokens(assembly.output_characters)
    )


def _estimated_tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _cut(message: str) -> str:
    """Return `message` within the stored length, at the end of a character."""
    if len(message) * 4 <= MAX_ERROR_MESSAGE_BYTES:
        return message
    return message.encode("utf-8", "replace")[:MAX_ERROR_MESSAGE_BYTES].decode("utf-8", "ignore")
