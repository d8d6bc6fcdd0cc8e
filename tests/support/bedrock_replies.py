"""Answers in the shapes of Amazon Bedrock: Converse and InvokeModel of an Anthropic model, streamed and not.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/welcome.html (2026-11).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tests.support import anthropic_replies
from tests.support.pace import Pace
from tests.support.replies import Reply, arguments_for, document, wanted_tools, words
from tests.support.wire_formats import aws_exception, bedrock_invoke_stream, converse_document, converse_stream

EVENT_STREAM = "application/vnd.amazon.eventstream"

_ERRORS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


def error(status: int) -> Reply:
    """Return the answer to a request that failed."""
    return document(status, {"__type": _ERRORS.get(status, "Unknown"), "message": f"the fake provider says {status}"})


def answer(request: dict[str, Any], pace: Pace, serial: int, *, operation: str, model: str) -> Reply:
    """Return the answer to an operation of the runtime.

    Args:
        request: Its body.
        pace: How the answer is made.
        serial: Number of the request.
        operation: Last part of the path.
        model: That the path names.
    """
    if pace.status >= 400:
        return error(pace.status)
    if operation.startswith("converse"):
        reply = _converse(request, pace, serial, streams=operation.endswith("-stream"))
    else:
        reply = _invoke(request, pace, serial, streams=operation.endswith("-stream"), model=model)
    reply.error_piece = aws_exception("throttlingException", "Too many requests, please wait before trying again.")
    return reply


def _converse(request: dict[str, Any], pace: Pace, serial: int, *, streams: bool) -> Reply:
    tools = [tool["toolSpec"] for tool in (request.get("toolConfig") or {}).get("tools") or [] if "toolSpec" in tool]
    content = (request.get("messages") or [{}])[-1].get("content") or []
    answers_a_tool = any("toolResult" in block for block in content)
    calls = [
        {
            "name": tools[number % len(tools)]["name"],
            "call_id": f"tooluse_{serial:06d}_{number}",
            "arguments": arguments_for((tools[number % len(tools)].get("inputSchema") or {}).get("json"), number),
        }
        for number in range(wanted_tools({"tools": tools}, pace, answers_a_tool=answers_a_tool))
    ]
    thinks = "thinking" in (request.get("additionalModelRequestFields") or {})
    reply = Reply(
        200,
        EVENT_STREAM if streams else "application/json",
        [],
        usage={
            "input_tokens": 100 + serial,
            "output_tokens": 10 + pace.events,
            "cache_read_input_tokens": serial % 7,
            "cache_write_input_tokens": serial % 5,
        },
        tool_calls=calls,
        thoughts=[f"Let me think about request {serial}: ä → ok."] if thinks else [],
    )
    answered: dict[str, Any] = {
        "tools": [(call["name"], call["call_id"], json.loads(call["arguments"])) for call in calls],
        "usage": reply.usage,
    }
    text, thought = list(words(pace)), "".join(reply.thoughts)
    if streams:
        reply.pieces = converse_stream(text=text, reasoning=[thought[:9], thought[9:]] if thought else [], **answered)
    else:
        reply.pieces = [converse_document(text="".join(text), reasoning=thought, **answered)]
    return reply


def _invoke(request: dict[str, Any], pace: Pace, serial: int, *, streams: bool, model: str) -> Reply:
    reply = anthropic_replies.messages({**request, "model": model, "stream": streams}, pace, serial)
    if streams:
        reply.content_type = EVENT_STREAM
        reply.pieces = bedrock_invoke_stream(_events(reply.pieces), reply.usage)
    return reply


def _events(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        yield from (json.loads(line[6:]) for line in piece.splitlines() if line.startswith(b"data: "))
