"""What the requests of all APIs have in common: their top level, their size in characters, session hints.

Not a parser of any API's messages: each API's module reads its own.
"""

import re
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.decoding import decode, starts_with, text_of

Fields = dict[str, msgspec.Raw]
"""A JSON object of which only the names are read; msgspec skips over the values, so that megabytes of history cost little."""

FIELDS: Final = msgspec.json.Decoder(Fields)
ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])

MAX_HINT_CHARACTERS: Final = 1024
"""Session hints and model names are cut to this; real ones are below 250."""

NOTHING: Final = msgspec.Raw(b"null")

# Starts at quotes only and never crosses one, so that every byte is looked at once.
_BASE64: Final = re.compile(rb'"(?:data:[^",;]{1,100};base64,)?([A-Za-z0-9+/]{1024,}={0,2})"')


def top_level(body: bytes) -> Fields | RequestFacts:
    """Return the top-level fields of a request; or the facts of one that is no JSON object, which are an anomaly."""
    try:
        return decode(FIELDS, body)
    except MalformedBody as exc:
        return RequestFacts(anomaly=f"request body: {exc}", input_characters=input_characters(body))


def model_of(fields: Fields) -> str:
    """Return the model that a request asks for, or an empty string."""
    return (text_of(fields.get("model", NOTHING)) or "")[:MAX_HINT_CHARACTERS]


def is_streaming(fields: Fields) -> bool:
    """Return whether a request asks for a streamed response."""
    return starts_with(fields.get("stream", NOTHING), b"t")


def session_hints(fields: Fields) -> dict[str, str]:
    """Return what an OpenAI-style request says about its session, by the keys that `clients` looks for; raw candidates."""
    hints = {"prompt_cache_key": hint(fields.get("prompt_cache_key", NOTHING))}
    for group, name, key in (
        ("metadata", "user_id", "user_id"),
        ("client_metadata", "session_id", "client_metadata.session_id"),
    ):
        try:
            hints[key] = hint(decode(FIELDS, fields.get(group, NOTHING)).get(name, NOTHING))
        except MalformedBody:
            continue
    return {key: value for key, value in hints.items() if value}


def hint(raw: msgspec.Raw) -> str:
    """Return a session hint: the trimmed string that `raw` holds, cut; empty for anything else."""
    return (text_of(raw) or "").strip()[:MAX_HINT_CHARACTERS]


def input_characters(body: bytes) -> int:
    """Return about how many characters of text a request holds.

    The length of the body in bytes, without long base64 strings (images, documents, sound). It counts the JSON around the text
    too, some 5 % in real agents' requests, and a character beyond ASCII as its two to four bytes; models split both into more
    tokens than plain words, so the estimate made from it stays near. It is used only where a provider reports no usage.
    """
    total = len(body)
    if b"base64" in body or b"input_audio" in body:
        total -= sum(match.end() - match.start() for match in _BASE64.finditer(body))
    return total
