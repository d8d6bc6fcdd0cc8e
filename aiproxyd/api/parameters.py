"""Query parameters as what they mean: a selection of interceptions, a page, ways to sum up. Wrong ones are a `Problem`.

Each condition may be a parameter of its own or a term of `q`, not both.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import Query, Request

from aiproxyd.api.access import LOCAL, Caller
from aiproxyd.api.problems import WRONG_PARAMETERS, Problem
from aiproxyd.api.search import Mistake, parse_search
from aiproxyd.identity.users import login_name
from aiproxyd.storage.listing import MAX_LIMIT
from aiproxyd.storage.selection import Selection, user_ids
from aiproxyd.storage.store import Store
from aiproxyd.storage.usage_report import Dimension

KEYS = (
    "initiator",
    "provider",
    "provider_name",
    "model",
    "client",
    "session_id",
    "outcome",
    "started_after",
    "started_before",
)

_TIMES = ("started_after", "started_before")

MAX_VALUE_CHARACTERS = 512
"""As long as a stored word."""

# SQLite's largest number; an offset of so many rows is a mistake anyway.
_MAX_OFFSET = 1 << 31

SearchText = Annotated[
    str,
    Query(
        alias="q",
        description='Terms `key:value` or `key:"quoted value"`, separated by spaces; keys are the parameters below.',
        examples=['initiator:alice model:"claude-sonnet-4-5"'],
    ),
]
Word = Annotated[str, Query()]
Time = Annotated[str, Query(description="RFC 3339, inclusive.", examples=["2026-01-31T08:00:00Z"])]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Offset = Annotated[int, Query(ge=0, le=_MAX_OFFSET)]


class Conditions(NamedTuple):
    """The conditions of a request, as text."""

    q: str
    parameters: dict[str, str]


def conditions(
    q: SearchText = "",
    *,
    initiator: Annotated[str, Query(description="Id or name of a user, or `me`.")] = "",
    provider: Annotated[str, Query(description="Type of the provider.")] = "",
    provider_name: Annotated[str, Query(description="Name of the provider's entry in the configuration.")] = "",
    model: Word = "",
    client: Annotated[str, Query(description="`Unknown` for what is not recognised.")] = "",
    session_id: Word = "",
    outcome: Word = "",
    started_after: Time = "",
    started_before: Time = "",
) -> Conditions:
    """Return the conditions of a request; a dependency of routes."""
    values = (initiator, provider, provider_name, model, client, session_id, outcome, started_after, started_before)
    return Conditions(q, {key: value for key, value in zip(KEYS, values, strict=True) if value})


async def selection_of(
    given: Conditions, *, caller: Caller, store: Store, message: str, keys: Sequence[str] = KEYS
) -> Selection:
    """Return which interceptions are meant.

    Args:
        given: The request's.
        caller: Who is `me`.
        store: Knows the users.
        message: What is said when a condition makes no sense.
        keys: Those that the route has.

    Raises:
        Problem: A condition makes no sense; every mistake is named.
    """
    terms, mistakes = parse_search(given.q, keys)
    for key, value in given.parameters.items():
        if key in terms:
            mistakes.append(Mistake(key, f'Query param "{key}" provided more than once.'))
        elif key not in keys:
            mistakes.append(Mistake(key, f'"{key}" is not a valid query param.'))
        terms[key] = value
    for key, value in terms.items():
        if len(value) > MAX_VALUE_CHARACTERS or not is_storable(value):
            mistakes.append(Mistake(key, f'Query param "{key}" has a value that no record has.'))
    times: dict[str, Any] = {}
    for key in _TIMES:
        if key in terms:
            time = time_of(terms.pop(key))
            if time is None:
                mistakes.append(
                    Mistake(key, f'Query param "{key}" must be a valid date format (RFC 3339, such as 2026-01-31T08:00:00Z).')
                )
            else:
                times[key] = time
    if terms.get("initiator") == "me":
        terms["initiator"] = login_name() if caller == LOCAL else caller.name
    if not mistakes and "initiator" in terms and not await store.read(lambda c: user_ids(c, terms["initiator"])):
        mistakes.append(Mistake("initiator", 'Query param "initiator" has invalid value: there is no such user.'))
    if mistakes:
        raise Problem(400, message, mistakes=mistakes)
    return Selection(**(times | terms))


def time_of(text: str) -> dt.datetime | None:
    """Return an RFC 3339 time in UTC, or None when it is none."""
    try:
        # A plus sign that nobody encoded arrives as a space.
        time = dt.datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return time.astimezone(dt.UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def is_storable(text: str) -> bool:
    """Return whether a record may hold `text`."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


def cursor(name: str, value: str, others: dict[str, object]) -> str:
    """Return a cursor.

    Raises:
        Problem: It makes no sense, or comes with another way to say where a page begins.
    """
    if value and not is_storable(value):
        raise Problem(400, WRONG_PARAMETERS, mistakes=[Mistake(name, f"{name}: {value!r} not found")])
    for other, other_value in others.items():
        if value and other_value:
            raise Problem(400, WRONG_PARAMETERS, f"Cannot use both {name} and {other} pagination in the same request.")
    return value


def dimensions(
    group_by: Annotated[
        list[str],
        Query(description="`user`, `model`, `provider`, `client`, `project`, `day`; several with commas or repeated."),
    ] = [],  # noqa: B006  (never changed)
) -> list[Dimension]:
    """Return what to sum up by; a dependency of routes.

    Raises:
        Problem: There is no such dimension, or one stands there twice.
    """
    words = [word.strip() for text in group_by for word in text.split(",") if word.strip()]
    mistakes = [
        Mistake("group_by", f"{word[:100]!r} is none of {', '.join(Dimension)}.")
        for word in words
        if word not in list(Dimension)
    ]
    if len(set(words)) < len(words):
        mistakes.append(Mistake("group_by", "A dimension stands there twice."))
    if mistakes:
        raise Problem(400, WRONG_PARAMETERS, mistakes=mistakes)
    return [Dimension(word) for word in words]


def caller_of(request: Request) -> Caller:
    """Return who asks; the gate has let them in."""
    caller: Caller = request.state.caller
    return caller
