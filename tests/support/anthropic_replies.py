"""Answers in the shapes of Anthropic's Messages API.

Source: https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/docs/build-with-claude/streaming (2026-11).
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.pace import Pace
from tests.support.replies import Reply, arguments_for, document, event, fragments, wanted_tools, words

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def error(status: int) -> Reply:
    """Return the answer to a request that failed."""
    kind = _ERRORS.get(status, "api_error")
    return document(status, {"type": "error", "error": {"type": kind, "message": f"the fake provider says {status}"}})


def models() -> Reply:
    """Return the list of models."""
    listed = [{"type": "model", "id": "claude-fake", "display_name": "Fake", "created_at": "2026-01-01T00:00:00Z"}]
    return document(200, {"data": listed, "has_more": False, "first_id": "claude-fake", "last_id": "claude-fake"})


def count_tokens() -> Reply:
    """Return the answer to /v1/messages/count_tokens."""
    return document(200, {"input_tokens": 42})


def messages(request: dict[str, Any], pace: Pace, serial: int) -> Reply:
    """Return the answer to /v1/messages."""
    if pace.status >= 400:
        return error(pace.status)
    turns = request.get("messages") or [{}]
    last = turns[-1].get("content")
    answers_a_tool = isinstance(last, list) and any(block.get("type") == "tool_result" for block in last)
    tools = request.get("tools") or []
    calls = [
        {
            "name": tools[number % len(tools)]["name"],
            "call_id": f"toolu_{serial:06d}_{number}",
            "arguments": arguments_for(tools[number % len(tools)].get("input_schema"), number),
        }
        for number in range(wanted_tools(request, pace, answers_a_tool=answers_a_tool))
    ]
    thinks = (request.get("thinking") or {}).get("type") in {"enabled", "adaptive"}
    thought = f"Let me think about request {serial}: ä → ok." if thinks else ""
    model = str(request.get("model", ""))
    reply = Reply(
        200,
        "text/event-stream; charset=utf-8",
        [],
        response_id=f"msg_{serial:08d}",
        response_model=f"{model.partition('+')[0]}-20260101",
        tool_calls=calls,
        thoughts=[thought] if thought else [],
        error_piece=event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error"),
    )
    cache_5m, cache_1h = serial % 5, serial % 3
    if not pace.silent_usage:
        reply.usage = {
            "input_tokens": 100 + serial,
            "output_tokens": 10 + pace.events,
            "cache_read_input_tokens": serial % 7,
            "cache_write_input_tokens": cache_5m + cache_1h,
        }
    wire_usage = {
        "input_tokens": 100 + serial,
        "cache_creation_input_tokens": cache_5m + cache_1h,
        "cache_read_input_tokens": serial % 7,
        "cache_creation": {"ephemeral_5m_input_tokens": cache_5m, "ephemeral_1h_input_tokens": cache_1h},
        "service_tier": "standard",
    }
    if request.get("stream"):
        reply.pieces = _stream(reply, wire_usage, thought, pace)
    else:
        reply.content_type = "application/json"
        reply.pieces = document(200, _message(reply, wire_usage, thought, pace)).pieces
    return reply


def _message(reply: Reply, wire_usage: dict[str, Any], thought: str, pace: Pace) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if thought:
        content.append({"type": "thinking", "thinking": thought, "signature": "c2lnbmF0dXJl"})
    content.append({"type": "text", "text": "".join(words(pace))})
    content += [
        {"type": "tool_use", "id": call["call_id"], "name": call["name"], "input": json.loads(call["arguments"])}
        for call in reply.tool_calls
    ]
    message: dict[str, Any] = {
        "id": reply.response_id,
        "type": "message",
        "role": "assistant",
        "model": reply.response_model,
        "content": content,
        "stop_reason": "tool_use" if reply.tool_calls else "end_turn",
        "stop_sequence": None,
        "usage": {**wire_usage, "output_tokens": reply.usage.get("output_tokens", 0)},
    }
    if not reply.usage:
        del message["usage"]
    return message


def _stream(reply: Reply, wire_usage: dict[str, Any], thought: str, pace: Pace) -> Iterator[bytes]:
    def named(data: dict[str, Any]) -> bytes:
        return event(data, data["type"])

    start: dict[str, Any] = {
        "id": reply.response_id,
        "type": "message",
        "role": "assistant",
        "model": reply.response_model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**wire_usage, "output_tokens": 1},
    }
    if not reply.usage:
        del start["usage"]
    yield named({"type": "message_start", "message": start})
    index = 0
    if thought:
        block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
        yield named({"type": "content_block_start", "index": index, "content_block": block})
        for fragment in fragments(thought):
            delta = {"type": "thinking_delta", "thinking": fragment}
            yield named({"type": "content_block_delta", "index": index, "delta": delta})
        delta = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
        yield named({"type": "content_block_delta", "index": index, "delta": delta})
        yield named({"type": "content_block_stop", "index": index})
        index += 1
    yield named({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}})
    yield named({"type": "ping"})
    for word in words(pace):
        yield named({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": word}})
    yield named({"type": "content_block_stop", "index": index})
    for call in reply.tool_calls:
        index += 1
        block = {"type": "tool_use", "id": call["call_id"], "name": call["name"], "input": {}}
        yield named({"type": "content_block_start", "index": index, "content_block": block})
        for fragment in ["", *fragments(call["arguments"])]:
            delta = {"type": "input_json_delta", "partial_json": fragment}
            yield named({"type": "content_block_delta", "index": index, "delta": delta})
        yield named({"type": "content_block_stop", "index": index})
    end: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use" if reply.tool_calls else "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": reply.usage.get("output_tokens", 0)},
    }
    if not reply.usage:
        del end["usage"]
    yield named(end)
    yield named({"type": "message_stop"})
