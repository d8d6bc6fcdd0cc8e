"""JSON of providers to typed structs: strict and fast first, then once more with what real providers get wrong repaired.

Not a parser of any API. Facts:
- msgspec skips fields that a struct does not name, so a small struct is the cheap way to read a large value.
- msgspec refuses JSON that the providers' own SDKs accept: a lone surrogate escape, `NaN` and `Infinity` (Python servers write
  them for log probabilities), a raw control character inside a string (a data line broken in two), a byte order mark, and bytes
  that are not UTF-8. `repaired` turns these into their nearest legal form; it runs only after a refusal.
"""

import re
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import UnknownEvent

Count = int | float | None
"""A token count as providers write it: some say 12.0, many say null for none."""

MAX_KIND_CHARACTERS: Final = 64
"""A provider's word in an UnknownEvent is cut to this."""

MAX_OPEN_PARTS: Final = 4096
"""Blocks, tool calls or items that a parser remembers within one response. The largest seen in practice are below 200."""

# A string, closed or not, in one match that never fails: an unclosed one costs one pass, not one a quote.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|-?Infinity|NaN', re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.",
    re.DOTALL,
)


def decode[T](decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Return what `data` says, by `decoder`'s type.

    Raises:
        MalformedBody: It is no JSON even when repaired, or a field of the type is not what the API documents.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as exc:
        raise MalformedBody(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return decoder.decode(repaired(bytes(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedBody(str(exc)) from exc


def repaired(data: bytes) -> bytes:
    """Return `data` as UTF-8 JSON text without what msgspec refuses and other readers accept; see the head of this file."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    return _TOKEN.sub(_repair_token, text).encode()


def _repair_token(match: re.Match[str]) -> str:
    token = match[0]
    if not token.startswith('"'):
        return "null"
    if not token.isprintable():
        token = _CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", token)
    if "\\u" in token:
        token = _ESCAPE.sub(_repair_escape, token)
    return token


def _repair_escape(match: re.Match[str]) -> str:
    # Six characters that look like a surrogate are one without its partner; pairs match with twelve.
    return "\\ufffd" if len(match[0]) == 6 else match[0]


def starts_with(raw: msgspec.Raw, start: bytes) -> bool:
    """Return whether the JSON value that `raw` holds starts with the one byte `start`; copies nothing."""
    return len(raw) > 0 and memoryview(raw)[0] == start[0]


def is_null(raw: msgspec.Raw) -> bool:
    """Return whether `raw` holds null, or nothing."""
    return len(raw) == 0 or starts_with(raw, b"n")


def text_of(raw: msgspec.Raw) -> str | None:
    """Return the JSON string that `raw` holds; None when it holds anything else, or nothing."""
    try:
        return decode(_TEXT, raw) if starts_with(raw, b'"') else None
    except MalformedBody:
        return None


def json_text(raw: msgspec.Raw) -> str:
    """Return the JSON text that `raw` holds, as it was sent."""
    return bytes(raw).decode("utf-8", "replace")


def unknown(what: str, word: str) -> UnknownEvent:
    """Return the event for a `what` (`event`, `item`, …) of an unknown type; without any type, its documented type is missing."""
    return UnknownEvent(f"{what}:{short(word)}" if word else f"missing:{what}.type")


def short(word: str) -> str:
    """Return a provider's word, cut so that whoever counts by it stays bounded."""
    return word[:MAX_KIND_CHARACTERS]


_TEXT: Final = msgspec.json.Decoder(str)
