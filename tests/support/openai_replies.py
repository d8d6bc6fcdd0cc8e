"""Answers in the shapes of OpenAI's Chat Completions and Responses APIs.

Source: https://platform.openai.com/docs/api-reference/chat, https://platform.openai.com/docs/api-reference/responses (2026-11).
"""

from collections.abc import Iterator
from typing import Any

from tests.support.pace import Pace
from tests.support.replies import Reply, arguments_for, document, event, fragments, wanted_tools, words

_CREATED_AT = 1_780_000_000


def error(status: int) -> Reply:
    """Return the answer to a request that failed."""
    kind = {400: "invalid_request_error", 401: "invalid_request_error", 429: "rate_limit_exceeded"}.get(status, "server_error")
    body = {"message": f"the fake provider says {status}", "type": kind, "param": None, "code": None}
    return document(status, {"error": body})


def models() -> Reply:
    """Return the list of models."""
    return document(
        200, {"object": "list", "data": [{"id": "gpt-fake", "object": "model", "created": _CREATED_AT, "owned_by": "fake"}]}
    )


def embeddings(request: dict[str, Any]) -> Reply:
    """Return the answer to /v1/embeddings."""
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125]}
    model = f"{str(request.get('model', '')).partition('+')[0]}-2026-01-01"
    body = {"object": "list", "data": [vector], "model": model, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    usage = {"input_tokens": 3, "output_tokens": 0, "cache_read_input_tokens": 0, "cache_write_input_tokens": 0}
    return document(200, body, usage=usage, response_model=model)


def _usage(serial: int, pace: Pace) -> dict[str, int]:
    if pace.silent_usage:
        return {}
    return {
        "input_tokens": 100 + serial,
        "output_tokens": 10 + pace.events,
        "cache_read_input_tokens": serial % 7,
        "cache_write_input_tokens": 0,
        "reasoning_output_tokens": serial % 4,
    }


def chat_completions(request: dict[str, Any], pace: Pace, serial: int) -> Reply:
    """Return the answer to /v1/chat/completions."""
    if pace.status >= 400:
        return error(pace.status)
    turns = request.get("messages") or [{}]
    tools = [tool.get("function") or {} for tool in request.get("tools") or []]
    count = wanted_tools(request, pace, answers_a_tool=turns[-1].get("role") == "tool")
    calls = [
        {
            "name": tools[number % len(tools)]["name"],
            "call_id": f"call_{serial:06d}_{number}",
            "arguments": arguments_for(tools[number % len(tools)].get("parameters"), number),
        }
        for number in range(count)
    ]
    streams = bool(request.get("stream"))
    includes_usage = not streams or bool((request.get("stream_options") or {}).get("include_usage"))
    reply = Reply(
        200,
        "text/event-stream; charset=utf-8" if streams else "application/json",
        [],
        usage=_usage(serial, pace) if includes_usage else {},
        response_id=f"chatcmpl-{serial:08d}",
        response_model=f"{str(request.get('model', '')).partition('+')[0]}-2026-01-01",
        tool_calls=calls,
        error_piece=event(
            {"error": {"message": "The server had an error", "type": "server_error", "param": None, "code": None}}
        ),
    )
    if streams:
        reply.pieces = _chat_stream(reply, pace)
        return reply
    message: dict[str, Any] = {"role": "assistant", "content": "".join(words(pace)), "refusal": None}
    if calls:
        message["tool_calls"] = [
            {"id": call["call_id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in calls
        ]
    body = {
        "id": reply.response_id,
        "object": "chat.completion",
        "created": _CREATED_AT,
        "model": reply.response_model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}],
        "service_tier": "default",
    }
    if reply.usage:
        body["usage"] = _chat_usage(reply.usage)
    reply.pieces = document(200, body).pieces
    return reply


def _chat_usage(usage: dict[str, int]) -> dict[str, Any]:
    # On the wire `prompt_tokens` contains the cached ones.
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage["output_tokens"],
        "total_tokens": prompt + usage["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": usage["cache_read_input_tokens"], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage["reasoning_output_tokens"], "audio_tokens": 0},
    }


def _chat_stream(reply: Reply, pace: Pace) -> Iterator[bytes]:
    def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(
            {
                "id": reply.response_id,
                "object": "chat.completion.chunk",
                "created": _CREATED_AT,
                "model": reply.response_model,
                "choices": [choice],
                **more,
            }
        )

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for word in words(pace):
        yield chunk({"content": word})
    for number, call in enumerate(reply.tool_calls):
        start = {
            "index": number,
            "id": call["call_id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": ""},
        }
        yield chunk({"tool_calls": [start]})
        for fragment in fragments(call["arguments"]):
            yield chunk({"tool_calls": [{"index": number, "function": {"arguments": fragment}}]})
    yield chunk({}, "tool_calls" if reply.tool_calls else "stop")
    if reply.usage:
        yield chunk({}, usage=_chat_usage(reply.usage)).replace(
            b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]', b'"choices":[]'
        )
    yield b"data: [DONE]\n\n"


def responses(request: dict[str, Any], pace: Pace, serial: int) -> Reply:
    """Return the answer to /v1/responses."""
    if pace.status >= 400:
        return error(pace.status)
    items = request.get("input")
    last = items[-1] if isinstance(items, list) and items else {}
    tools = [tool for tool in request.get("tools") or [] if tool.get("type") == "function"]
    count = wanted_tools({"tools": tools}, pace, answers_a_tool=last.get("type") == "function_call_output")
    calls = [
        {
            "name": tools[number % len(tools)]["name"],
            "call_id": f"call_{serial:06d}_{number}",
            "arguments": arguments_for(tools[number % len(tools)].get("parameters"), number),
        }
        for number in range(count)
    ]
    thought = f"The user wants request {serial}; simple enough." if request.get("reasoning") else ""
    streams = bool(request.get("stream"))
    reply = Reply(
        200,
        "text/event-stream; charset=utf-8" if streams else "application/json",
        [],
        usage=_usage(serial, pace),
        response_id=f"resp_{serial:08d}",
        response_model=f"{str(request.get('model', '')).partition('+')[0]}-2026-01-01",
        tool_calls=calls,
        thoughts=[thought] if thought else [],
        error_piece=event(
            {
                "type": "error",
                "code": "server_error",
                "message": "The server had an error",
                "param": None,
                "sequence_number": 9,
            },
            "error",
        ),
    )
    if streams:
        reply.pieces = _responses_stream(reply, request, pace)
    else:
        body = _response(reply, request, "completed", _output(reply, "".join(words(pace))))
        reply.pieces = document(200, body).pieces
    return reply


def _output(reply: Reply, text: str) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    for number, thought in enumerate(reply.thoughts):
        summary = [{"type": "summary_text", "text": thought}]
        output.append({"id": f"rs_{reply.response_id}_{number}", "type": "reasoning", "summary": summary})
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    output.append(
        {"id": f"msg_{reply.response_id}", "type": "message", "status": "completed", "role": "assistant", "content": content}
    )
    output += [
        {
            "id": f"fc_{call['call_id']}",
            "type": "function_call",
            "status": "completed",
            "call_id": call["call_id"],
            "name": call["name"],
            "arguments": call["arguments"],
        }
        for call in reply.tool_calls
    ]
    return output


def _response(reply: Reply, request: dict[str, Any], status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = None
    if status == "completed" and reply.usage:
        whole = reply.usage["input_tokens"] + reply.usage["cache_read_input_tokens"]
        usage = {
            "input_tokens": whole,
            "input_tokens_details": {"cached_tokens": reply.usage["cache_read_input_tokens"]},
            "output_tokens": reply.usage["output_tokens"],
            "output_tokens_details": {"reasoning_tokens": reply.usage["reasoning_output_tokens"]},
            "total_tokens": whole + reply.usage["output_tokens"],
        }
    return {
        "id": reply.response_id,
        "object": "response",
        "created_at": _CREATED_AT,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": reply.response_model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": request.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": {},
    }


def _responses_stream(reply: Reply, request: dict[str, Any], pace: Pace) -> Iterator[bytes]:
    sequence = iter(range(1 << 30))

    def named(kind: str, **data: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(sequence), **data}, kind)

    yield named("response.created", response=_response(reply, request, "in_progress", []))
    yield named("response.in_progress", response=_response(reply, request, "in_progress", []))
    text = ""
    for index, item in enumerate(_output(reply, "")):
        at = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "reasoning":
                yield named("response.output_item.added", output_index=index, item={**item, "summary": []})
                part = {"type": "summary_text", "text": ""}
                yield named("response.reasoning_summary_part.added", **at, summary_index=0, part=part)
                whole = item["summary"][0]["text"]
                for fragment in fragments(whole):
                    yield named("response.reasoning_summary_text.delta", **at, summary_index=0, delta=fragment)
                yield named("response.reasoning_summary_text.done", **at, summary_index=0, text=whole)
                yield named("response.reasoning_summary_part.done", **at, summary_index=0, part=item["summary"][0])
            case "message":
                added = {**item, "status": "in_progress", "content": []}
                yield named("response.output_item.added", output_index=index, item=added)
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                yield named("response.content_part.added", **at, content_index=0, part=part)
                for word in words(pace):
                    text += word if not pace.endless else ""
                    yield named("response.output_text.delta", **at, content_index=0, delta=word, logprobs=[])
                yield named("response.output_text.done", **at, content_index=0, text=text, logprobs=[])
                item["content"] = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
                yield named("response.content_part.done", **at, content_index=0, part=item["content"][0])
            case _:
                added = {**item, "status": "in_progress", "arguments": ""}
                yield named("response.output_item.added", output_index=index, item=added)
                for fragment in fragments(item["arguments"]):
                    yield named("response.function_call_arguments.delta", **at, delta=fragment)
                yield named("response.function_call_arguments.done", **at, name=item["name"], arguments=item["arguments"])
        yield named("response.output_item.done", output_index=index, item=item)
    yield named("response.completed", response=_response(reply, request, "completed", _output(reply, text)))
