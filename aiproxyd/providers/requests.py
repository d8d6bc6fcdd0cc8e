"""What the requests of all APIs have in common: their top level, their size in characters, session hints.

Not a parser of any API's messages: each API's module reads its own.

Strategy: agents send their whole history with each request, some megabytes of which only the last entry matters. One pass over
the body cuts the history into raw entries, which msgspec does without decoding or copying them; only the last is decoded.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.decoding import decode, starts_with, text_of

FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
NOTHING: Final = msgspec.Raw(b"null")

MAX_HINT_CHARACTERS: Final = 1024
"""Session hints and model names are cut to this; real ones are below 250."""

_MIN_BASE64_BYTES: Final = 1024
"""Shorter base64 strings are left in the count of characters."""


class Request(msgspec.Struct):
    """The top level of a request. An API's own adds its history: `messages` or `input`."""

    model: msgspec.Raw = NOTHING
    stream: msgspec.Raw = NOTHING
    metadata: msgspec.Raw = NOTHING
    prompt_cache_key: msgspec.Raw = NOTHING
    client_metadata: msgspec.Raw = NOTHING
    stream_options: msgspec.Raw = NOTHING


_REQUEST: Final = msgspec.json.Decoder(Request)


def read[R: Request](
    body: bytes,
    decoder: msgspec.json.Decoder[R],
    last_entry: Callable[[R], tuple[str | None, str]],
    session: Callable[[Request], tuple[str, dict[str, str]]],
) -> RequestFacts:
    """Return what a request's body says. Total: what is not as documented becomes the anomaly, and the rest stands.

    Args:
        body: The whole body, decoded.
        decoder: Of the API's own top level.
        last_entry: Gives the last user prompt and the id of the tool call that the request answers; may raise MalformedBody.
        session: Gives the session id that the body alone proves, and other candidates.
    """
    prompt, call_id, anomaly = None, "", ""
    request: Request
    try:
        request = whole = decode(decoder, body)
        prompt, call_id = last_entry(whole)
    except MalformedBody as exc:
        anomaly = f"request body: {exc}"
        try:
            request = decode(_REQUEST, body)
        except MalformedBody:
            return RequestFacts(anomaly=anomaly, input_characters=input_characters(body))
    session_id, metadata = session(request)
    return RequestFacts(
        request_model=(text_of(request.model) or "")[:MAX_HINT_CHARACTERS],
        streaming=starts_with(request.stream, b"t"),
        asks_for_usage=_includes_usage(request.stream_options),
        prompt=prompt,
        correlating_tool_call_id=call_id,
        client_session_id=session_id,
        anomaly=anomaly,
        input_characters=input_characters(body),
        metadata=metadata,
    )


def session_candidates(request: Request) -> tuple[str, dict[str, str]]:
    """Return no proven session, and what an OpenAI-style request says about its own, by the keys that `clients` looks for."""
    candidates = {
        "prompt_cache_key": hint(request.prompt_cache_key),
        "user_id": nested_hint(request.metadata, "user_id"),
        "client_metadata.session_id": nested_hint(request.client_metadata, "session_id"),
    }
    return "", {key: value for key, value in candidates.items() if value}


def nested_hint(raw: msgspec.Raw, name: str) -> str:
    """Return the hint that the field `name` of the object `raw` holds; empty when there is none."""
    if not starts_with(raw, b"{"):
        return ""
    try:
        return hint(decode(FIELDS, raw).get(name, NOTHING))
    except MalformedBody:
        return ""


def _includes_usage(stream_options: msgspec.Raw) -> bool:
    if not starts_with(stream_options, b"{"):
        return False
    try:
        return starts_with(decode(FIELDS, stream_options).get("include_usage", NOTHING), b"t")
    except MalformedBody:
        return False


def hint(raw: msgspec.Raw) -> str:
    """Return a session hint: the trimmed string that `raw` holds, cut; empty for anything else."""
    return (text_of(raw) or "").strip()[:MAX_HINT_CHARACTERS]


def input_characters(body: bytes) -> int:
    """Return about how many characters of text a request holds.

    The length of the body in bytes, without long base64 strings (images, documents, sound). It counts the JSON around the text
    too, some 5 % in real agents' requests, and a character beyond ASCII as its two to four bytes; models split both into more
    tokens than plain words, so the estimate made from it stays near. It is used only where a provider reports no usage.
    """
    if b"base64" not in body and b'"input_audio"' not in body:
        return len(body)
    return len(body) - sum(end - start for start, end in _base64_spans(body).items())


def _base64_spans(body: bytes) -> dict[int, int]:
    """Return where long base64 strings start, and where each ends.

    Three forms: a data URL; Anthropic's source of type `base64` with `data` after it, or before it where keys are sorted; OpenAI's
    `input_audio`. Searching for the words and then for the closing quote costs a hundredth of looking at each character.
    """
    spans: dict[int, int] = {}
    for marker in (b";base64,", b'"base64"', b'"input_audio"'):
        # Each search begins where the one before ended, so that markers without end cost no more than their length.
        after, at = 0, body.find(marker)
        while at >= 0:
            before, after = after, at + len(marker)
            start = after if marker == b";base64," else _start_of_data(body, before, at, after)
            end = body.find(b'"', start) if start else -1
            # Words in a text that talks about base64 are followed by a space before any quote.
            if end - start >= _MIN_BASE64_BYTES and body.find(b" ", start, end) < 0:
                spans[start] = end
            if start >= after:
                after = len(body) if end < 0 else end
            at = body.find(marker, after)
    return spans


def _start_of_data(body: bytes, before: int, at: int, after: int) -> int:
    """Return where the string of the `data` field starts that stands in one object with the marker `at`; 0 for nowhere."""
    brace = body.find(b"}", after, after + 200)
    data = body.find(b'"data"', after, after + 200 if brace < 0 else brace)
    if data < 0:
        data = body.rfind(b'"data"', before, at)
    return 0 if data < 0 else body.find(b'"', data + 6, data + 20) + 1
