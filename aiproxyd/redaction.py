"""Masks of credentials for records, and texts of others without the credentials they hold. Pure; no secret leaves this module whole.

Fails closed: what is too short to be masked is shown as `...`, and what merely looks like a secret is hidden like one.
"""

import html
import json
import re
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

from aiproxyd.model.head import RequestHead

# A key of n or more characters shows so many at each end, the longest rule first. Coder's table, so that hints are equal.
_SHOWN: Final = ((20, 4), (10, 2), (5, 1))
_ELLIPSIS: Final = "..."

HIDDEN: Final = "[hidden]"
"""Stands for a secret."""

_HIDDEN_BYTES: Final = HIDDEN.encode()

# A shorter one is no secret, and hiding every occurrence of it would make lines unreadable.
MIN_SECRET_CHARACTERS: Final = 8

SENSITIVE_HEADERS: Final = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-coder-ai-governance-token",
        "x-goog-api-key",
        "x-goog-iam-authorization-token",
    }
)
"""Lower-case names of request headers whose values nothing may keep."""

_SENSITIVE_PARAMETERS: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "auth", "code", "key", "password", "secret", "sig", "signature", "token"}
    | {"x-amz-credential", "x-amz-security-token", "x-amz-signature", "x-goog-credential", "x-goog-signature"}
)

_SEPARATORS: Final = re.compile(r"[;,\s]+")

_SECRET_FORM: Final = re.compile(
    r"""
      (?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}
    | (?P<userinfo>://)[^/\s:@]*:[^/\s@]+(?=@)
    | \b(?:sk|rk|pk|xai|gsk|hf|ghp|gho|ghu|ghs|ghr|github_pat|glpat|xox[abprs]|AIza|ya29)[-_.]?[A-Za-z0-9._-]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?
    | (?P<pem>-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----).*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)

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


def credential_hint(head: RequestHead, token: str = "") -> str:
    """Return the mask of the provider credential that a request carries; empty when it carries none.

    Looks into `x-api-key`, `api-key`, `x-goog-api-key`, `authorization` (without its scheme) and the `key` of the query.

    Args:
        head: Of the request.
        token: The client's credential of this proxy, which is none of a provider wherever it stands; empty for none.
    """
    headers = head.headers
    for name in _KEY_HEADERS:
        if (value := (headers.first(name) or "").strip()) and value != token:
            return mask(value)
    if authorization := (headers.first("authorization") or "").strip():
        scheme, _, credential = authorization.partition(" ")
        if (value := credential.strip() or scheme) != token:
            return mask(value)
    # Google's keys may stand in the query.
    for field in head.query.split("&") if "key=" in head.query else ():
        if field.startswith("key=") and (value := unquote_plus(field.removeprefix("key="))) != token:
            return mask(value)
    return ""


class Secrets:
    """Strings that no line may hold, besides what looks like a secret."""

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def replace(self, values: Collection[str]) -> None:
        """Hide exactly these from here on, those of at least `MIN_SECRET_CHARACTERS`."""
        self._values = frozenset(value for value in values if len(value) >= MIN_SECRET_CHARACTERS)
        # Longest first, so that no rest of a secret that contains another stays.
        parts = sorted(map(re.escape, self._values), key=len, reverse=True)
        self._pattern = re.compile("|".join(parts)) if parts else None

    def add(self, value: str) -> None:
        """Hide `value` too."""
        self.replace(self._values | {value})

    def hide(self, text: str) -> str:
        """Return `text` without anything that is or looks like a secret."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return _SECRET_FORM.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    return (match["scheme"] or match["userinfo"] or "") + HIDDEN


def sensitive_values(head: RequestHead) -> tuple[str, ...]:
    """Return the values of a request's head that hold credentials, as they are: enough for `without_credentials`, and cheap."""
    found = [value for name, value in head.headers if name in SENSITIVE_HEADERS]
    if "=" in head.query:
        found.append("?" + head.query)
    return tuple(found)


def without_credentials(text: str, values: Iterable[str]) -> str:
    """Return `text`, such as a provider's error, without the credentials in `values`, which `sensitive_values` gave."""
    parts = {part for value in values for part in _parts_of(value) if len(part) >= MIN_SECRET_CHARACTERS}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, HIDDEN)
    return text


def forms_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return the bytes as which a server may repeat `secrets`, for `without_forms`: as they are, and escaped for URLs, JSON and HTML."""
    forms = set()
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARACTERS:
            in_json = json.dumps(secret)[1:-1]
            forms |= {secret, quote(secret, safe=""), in_json, in_json.replace("/", r"\/"), html.escape(secret)}
    # Longest first, so that no rest of a secret that contains another stays.
    return tuple(sorted((form.encode() for form in forms), key=len, reverse=True))


def without_forms(data: bytes, forms: Iterable[bytes]) -> bytes:
    """Return `data` without the secrets that `forms_of` gave."""
    for form in forms:
        data = data.replace(form, _HIDDEN_BYTES)
    return data


def _parts_of(value: str) -> Iterable[str]:
    """Yield what of a sensitive value is secret, in the forms in which a server may repeat it."""
    if value.startswith("?"):
        for field in value[1:].split("&"):
            name, _, secret = field.partition("=")
            if name.lower() in _SENSITIVE_PARAMETERS:
                yield secret
                yield unquote(secret)
                yield unquote_plus(secret)
        return
    yield value
    # The credential behind a scheme, each cookie, each parameter of a signature.
    for part in _SEPARATORS.split(value):
        yield part
        yield part.partition("=")[2].strip('"')
