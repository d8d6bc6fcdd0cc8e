"""Answers in the shapes of Google's generateContent, as an event stream and as an array, and embedContent.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/embeddings (2026-11).
"""

import json
from typing import Any

from tests.support.pace import Pace
from tests.support.replies import Reply, arguments_for, document, wanted_tools, words
from tests.support.wire_formats import code_assist, gemini_array, gemini_chunks, gemini_document, gemini_event_stream

_ERRORS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(status: int) -> Reply:
    """Return the answer to a request that failed."""
    return document(status, _error(status, f"the fake provider says {status}"))


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": _ERRORS.get(status, "UNKNOWN")}}


def embed_content() -> Reply:
    """Return the answer to :embedContent and :batchEmbedContents."""
    usage = {"input_tokens": 3, "output_tokens": 0, "cache_read_input_tokens": 0, "cache_write_input_tokens": 0}
    body = {"embeddings": [{"values": [0.25, -0.5, 0.125]}], "usageMetadata": {"promptTokenCount": 3}}
    return document(200, body, usage=usage)


def generate_content(request: dict[str, Any], pace: Pace, serial: int, *, target: str) -> Reply:
    """Return the answer to :generateContent and :streamGenerateContent.

    Args:
        request: Its body.
        pace: How the answer is made.
        serial: Number of the request.
        target: Of the request line: it says whether and how to stream.
    """
    if pace.status >= 400:
        return error(pace.status)
    is_wrapped = "request" in request
    asked = request["request"] if is_wrapped else request
    thinks = bool(((asked.get("generationConfig") or {}).get("thinkingConfig") or {}).get("includeThoughts"))
    thought = f"**Request {serial}**\nä → ok." if thinks else ""
    calls = _calls(asked, pace, serial)
    reply = Reply(
        200,
        "application/json; charset=UTF-8",
        [],
        response_id=f"gemini-{serial:08d}",
        response_model="gemini-fake-001",
        tool_calls=calls,
        thoughts=[thought] if thought else [],
        error_piece=gemini_event_stream([_error(503, "The model is overloaded.")])[0],
    )
    if not pace.silent_usage:
        reply.usage = {
            "input_tokens": 100 + serial,
            "output_tokens": 10 + pace.events,
            "cache_read_input_tokens": serial % 7,
            "cache_write_input_tokens": 0,
            "reasoning_output_tokens": serial % 4,
        }
    chunks = gemini_chunks(
        text=list(words(pace)),
        reasoning=[thought[:5], thought[5:]] if thought else [],
        tools=[(call["name"], call["call_id"], json.loads(call["arguments"])) for call in calls],
        usage=reply.usage,
        model=reply.response_model,
        response_id=reply.response_id,
    )
    if not reply.usage:
        for chunk in chunks:
            del chunk["usageMetadata"]
    if is_wrapped:
        # The envelope has the id, and what is in it has none.
        for chunk in chunks:
            del chunk["responseId"]
    if ":streamGenerateContent" not in target:
        whole = gemini_document(chunks)
        reply.pieces = [json.dumps(code_assist([whole], reply.response_id)[0] if is_wrapped else whole).encode()]
        return reply
    if is_wrapped:
        chunks = code_assist(chunks, reply.response_id)
    if "alt=sse" in target:
        reply.content_type = "text/event-stream"
        reply.pieces = gemini_event_stream(chunks)
    else:
        reply.pieces = gemini_array(chunks)
    return reply


def _calls(asked: dict[str, Any], pace: Pace, serial: int) -> list[dict[str, str]]:
    """Return the function calls of the answer; every second request's have ids, as newer models' do."""
    declared = [
        function
        for tool in asked.get("tools") or []
        for function in tool.get("functionDeclarations") or tool.get("function_declarations") or []
    ]
    contents = asked.get("contents") or [{}]
    parts = contents[-1].get("parts") or []
    answers_a_tool = any("functionResponse" in part or "function_response" in part for part in parts)
    count = wanted_tools({"tools": declared}, pace, answers_a_tool=answers_a_tool)
    return [
        {
            "name": declared[number % len(declared)]["name"],
            "call_id": f"fc_{serial:06d}_{number}" if serial % 2 else "",
            "arguments": arguments_for(_plain(declared[number % len(declared)]), number),
        }
        for number in range(count)
    ]


def _plain(declaration: dict[str, Any]) -> dict[str, Any]:
    """Return a function's schema with the type names of JSON Schema; Google's own are in capitals."""
    schema = declaration.get("parameters") or declaration.get("parametersJsonSchema") or {}
    kinds = {name: {"type": str(kind.get("type", "")).lower()} for name, kind in (schema.get("properties") or {}).items()}
    return {"properties": kinds}
