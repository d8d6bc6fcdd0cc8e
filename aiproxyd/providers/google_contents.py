"""Requests to Google's `generateContent`, as the Gemini API, Vertex AI and Code Assist take them.

Facts:
- The model is named by the path, at Code Assist by the body, which wraps the request in `request`.
- The last of `contents` is the user's, or the answer to function calls, which has the role `user` or `function`.
- Names of fields may be written in snake case, and a list of one as its only entry.

Source:
    https://ai.google.dev/api/generate-content
    https://ai.google.dev/gemini-api/docs/function-calling
    https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/code_assist/converter.ts
"""

from typing import Final

import msgspec

from aiproxyd.model.head import RequestHead
from aiproxyd.providers import requests
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.decoding import decode, is_null, starts_with, text_of
from aiproxyd.providers.paths import model_of


class _Request(requests.Request):
    contents: msgspec.Raw = requests.NOTHING
    request: msgspec.Raw = requests.NOTHING
    user_prompt_id: msgspec.Raw = requests.NOTHING


_REQUEST: Final = msgspec.json.Decoder(_Request)


def read_request(body: bytes, head: RequestHead) -> RequestFacts:
    """As `Api.read_request`."""
    facts = requests.read(body, _REQUEST, _last_content, _session)
    return msgspec.structs.replace(
        facts,
        request_model=facts.request_model.removeprefix("models/") or model_of(head.path),
        streaming=head.path.endswith(":streamGenerateContent"),
    )


def _last_content(request: _Request) -> tuple[str | None, str]:
    """Return the prompt and the id of the answered function call that the last content holds."""
    contents = request.contents
    if starts_with(request.request, b"{"):
        contents = decode(requests.FIELDS, request.request).get("contents", requests.NOTHING)
    entries = _several(contents)
    if not entries:
        return None, ""
    last = decode(requests.FIELDS, entries[-1])
    role = text_of(last.get("role", requests.NOTHING)) or "user"
    parts = [decode(requests.FIELDS, part) for part in _several(last.get("parts", requests.NOTHING))]
    parts.reverse()
    prompt = next((text for part in parts if (text := text_of(part.get("text", requests.NOTHING))) is not None), None)
    call_id = next((id_ for part in parts if (id_ := _answered_call(part))), "")
    return (prompt if role == "user" else None), call_id


def _answered_call(part: dict[str, msgspec.Raw]) -> str:
    answer = part.get("functionResponse") or part.get("function_response") or requests.NOTHING
    return requests.nested_hint(answer, "id")


def _several(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the entries of a list; one object stands for a list of one, as Google's servers take it."""
    if is_null(raw):
        return []
    return [raw] if starts_with(raw, b"{") else decode(requests.ITEMS, raw)


def _session(request: requests.Request) -> tuple[str, dict[str, str]]:
    """Return no proven session, and what Code Assist's envelope says about it."""
    if not isinstance(request, _Request):
        return "", {}
    candidates = {
        # Gemini CLI writes the one, Antigravity the other.
        "request.session_id": requests.nested_hint(request.request, "session_id")
        or requests.nested_hint(request.request, "sessionId"),
        "user_prompt_id": requests.hint(request.user_prompt_id),
    }
    return "", {key: value for key, value in candidates.items() if value}
