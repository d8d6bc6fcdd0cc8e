"""Masks of credentials for records. Pure; no secret leaves this module whole.

Fails closed: what is too short to be masked is shown as `...`.
"""

from typing import Final
from urllib.parse import unquote_plus

from aiproxyd.model.head import RequestHead

# A key of n or more characters shows so many at each end, the longest rule first. Coder's table, so that hints are equal.
_SHOWN: Final = ((20, 4), (10, 2), (5, 1))
_ELLIPSIS: Final = "..."

# The headers a provider's key may stand in, by the order in which one is taken when several are there. `authorization` is
# last: a client that sends both (an SDK with a placeholder bearer) is charged by the specific one.
_KEY_HEADERS: Final = ("x-api-key", "api-key", "x-goog-api-key")


def mask(secret: str) -> str:
    """Return a hint that tells two secrets apart and gives neither away; empty for an empty one.

    At most 11 characters, whatever the length of `secret`.
    """
    if not secret:
        return ""
    for length, shown in _SHOWN:
        if len(secret) >= length:
            return f"{secret[:shown]}{_ELLIPSIS}{secret[-shown:]}"
    return _ELLIPSIS


def credential_hint(head: RequestHead) -> str:
    """Return the mask of the provider credential that a request carries; empty when it carries none.

    Looks into `x-api-key`, `api-key`, `x-goog-api-key`, `authorization` (without its scheme) and the `key` of the query.
    """
    headers = head.headers
    for name in _KEY_HEADERS:
        if value := (headers.first(name) or "").strip():
            return mask(value)
    if authorization := (headers.first("authorization") or "").strip():
        scheme, _, credential = authorization.partition(" ")
        return mask(credential.strip() or scheme)
    # Google's keys may stand in the query.
    for field in head.query.split("&") if "key=" in head.query else ():
        if field.startswith("key="):
            return mask(unquote_plus(field.removeprefix("key=")))
    return ""
