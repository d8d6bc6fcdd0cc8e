"""Answers in the shapes of Google's generateContent, as an event stream and as an array, and embedContent.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/embeddings (2026-11).
"""

import json
from typing import Any

from tests.support.pace import Pace
from tests.support.replies import Reply, arguments_for, document, event, fragments, wanted_tools, words
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


def interactions(request: dict[str, Any], pace: Pace, serial: int) -> Reply:
    """Return the answer to /v1beta/interactions."""
    if pace.status >= 400:
        return document(pace.status, {"error": {"code": "error", "message": f"the fake provider says {pace.status}"}})
    declared = [tool for tool in request.get("tools") or [] if tool.get("type") == "function"]
    count = wanted_tools({"tools": declared}, pace, answers_a_tool="previous_interaction_id" in request)
    calls = [
        {
            "name": declared[number % len(declared)]["name"],
            "call_id": f"fc_{serial:06d}_{number}",
            "arguments": arguments_for(declared[number % len(declared)].get("parameters"), number),
        }
        for number in range(count)
    ]
    thought = f"Let me think about request {serial}: ä → ok."
    reply = Reply(
        200,
        "text/event-stream" if request.get("stream") else "application/json",
        [],
        response_id=f"v1_{serial:08d}",
        response_model="gemini-fake-001",
        tool_calls=calls,
        thoughts=[thought],
        usage={
            "input_tokens": 100 + serial,
            "output_tokens": 10 + pace.events,
            "cache_read_input_tokens": serial % 7,
            "cache_write_input_tokens": 0,
            "reasoning_output_tokens": serial % 4,
        },
    )
    steps: list[dict[str, Any]] = [
        {"type": "thought", "summary": [{"type": "text", "text": thought}], "signature": "c2lnbmF0dXJl"},
        {"type": "model_output", "content": [{"type": "text", "text": "".join(words(pace))}]},
        *(
            {"type": "function_call", "id": call["call_id"], "name": call["name"], "arguments": json.loads(call["arguments"])}
            for call in calls
        ),
    ]
    interaction = {
        "id": reply.response_id,
        "object": "interaction",
        "model": reply.response_model,
        "created": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z",
        "status": "requires_action" if calls else "completed",
        "usage": _interaction_usage(reply.usage),
    }
    if request.get("stream"):
        reply.pieces = _interaction_stream(interaction, steps)
    else:
        reply.pieces = [json.dumps({**interaction, "steps": steps}).encode()]
    return reply


def _interaction_usage(usage: dict[str, int]) -> dict[str, int]:
    thoughts = usage["reasoning_output_tokens"]
    figures = {
        "total_input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"],
        "total_output_tokens": usage["output_tokens"] - thoughts,
        "total_thought_tokens": thoughts,
    }
    return {**figures, "total_cached_tokens": usage["cache_read_input_tokens"], "total_tokens": sum(figures.values())}


def _interaction_stream(interaction: dict[str, Any], steps: list[dict[str, Any]]) -> list[bytes]:
    def named(kind: str, **data: Any) -> bytes:
        return event({"event_type": kind, **data}, kind)

    started = {name: value for name, value in interaction.items() if name != "usage"}
    pieces = [named("interaction.created", interaction={**started, "status": "in_progress"})]
    for index, step in enumerate(steps):
        match step["type"]:
            case "thought":
                start: dict[str, Any] = {"type": "thought"}
                texts = fragments(step["summary"][0]["text"])
                deltas = [{"type": "thought_summary", "content": {"type": "text", "text": text}} for text in texts]
            case "model_output":
                start = {"type": "model_output"}
                deltas = [{"type": "text", "text": text} for text in fragments(step["content"][0]["text"], 40)]
            case _:
                start = {**step, "arguments": {}}
                deltas = [{"type": "arguments_delta", "arguments": text} for text in fragments(json.dumps(step["arguments"]))]
        pieces.append(named("step.start", index=index, step=start))
        pieces += [named("step.delta", index=index, delta=delta) for delta in deltas]
        pieces.append(named("step.stop", index=index))
    pieces.append(named("interaction.completed", interaction=interaction))
    return pieces
