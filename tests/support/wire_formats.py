"""What the providers beyond OpenAI and Anthropic put on the wire: framings, and answers made from a small description.

For fakes and tests: written from the documentation and sharing nothing with the package, so that a fault there is not repeated
here. Each function returns bytes; the streaming ones return a list with one piece for each event, to be paced and cut by the caller.
"""

import base64
import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Usage = Mapping[str, int]
"""Token figures by our own names: `input_tokens` (uncached), `output_tokens` (reasoning included), `cache_read_input_tokens`,
`cache_write_input_tokens`, `reasoning_output_tokens`. What is left out is 0."""

ToolCall = tuple[str, str, Mapping[str, Any]]
"""Name, id (empty for none), arguments."""


# AWS event streams


def aws_message(payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Return one message of an AWS event stream with text headers."""
    return aws_frame(payload, b"".join(aws_header(name, 7, _sized(value.encode())) for name, value in headers.items()))


def aws_header(name: str, kind: int, value: bytes) -> bytes:
    """Return one header; `value` as it stands after the type."""
    return bytes([len(name.encode())]) + name.encode() + bytes([kind]) + value


def aws_frame(payload: bytes, headers: bytes) -> bytes:
    """Return one message whose headers are encoded already."""
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack("!I", zlib.crc32(lengths)) + headers + payload
    return message + struct.pack("!I", zlib.crc32(message))


def aws_event(kind: str, value: Any) -> bytes:
    """Return an event of Bedrock: its type in a header, its value as JSON."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return aws_message(json.dumps(value, separators=(",", ":")).encode(), headers)


def aws_exception(kind: str, message: str) -> bytes:
    """Return an exception inside a stream of Bedrock, such as `throttlingException`."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return aws_message(json.dumps({"message": message}).encode(), headers)


def aws_chunk(value: Any) -> bytes:
    """Return a chunk of InvokeModelWithResponseStream: base64 of a model's own event, padded as Bedrock does."""
    inner = base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
    return aws_event("chunk", {"bytes": inner, "p": "abcdefghijk"})


def _sized(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


# Bedrock


def bedrock_usage_headers(usage: Usage) -> list[tuple[str, str]]:
    """Return the headers in which InvokeModel tells the usage of a response in one document."""
    return [
        (f"X-Amzn-Bedrock-{name}-Token-Count", str(usage.get(key, 0)))
        for name, key in (
            ("Input", "input_tokens"),
            ("Output", "output_tokens"),
            ("Cache-Read-Input", "cache_read_input_tokens"),
            ("Cache-Write-Input", "cache_write_input_tokens"),
        )
    ]


def bedrock_invoke_stream(events: Iterable[Mapping[str, Any]], usage: Usage) -> list[bytes]:
    """Return the chunks of InvokeModelWithResponseStream around a model's own events; the last has the invocation's metrics."""
    values = [dict(event) for event in events]
    values[-1]["amazon-bedrock-invocationMetrics"] = {
        "inputTokenCount": usage.get("input_tokens", 0),
        "outputTokenCount": usage.get("output_tokens", 0),
        "invocationLatency": 1200,
        "firstByteLatency": 300,
        "cacheReadInputTokenCount": usage.get("cache_read_input_tokens", 0),
        "cacheWriteInputTokenCount": usage.get("cache_write_input_tokens", 0),
    }
    return [aws_chunk(value) for value in values]


def converse_usage(usage: Usage) -> dict[str, int]:
    """Return `usage` as Converse writes it."""
    figures = {
        "inputTokens": usage.get("input_tokens", 0),
        "outputTokens": usage.get("output_tokens", 0),
        "cacheReadInputTokens": usage.get("cache_read_input_tokens", 0),
        "cacheWriteInputTokens": usage.get("cache_write_input_tokens", 0),
    }
    return {**figures, "totalTokens": sum(figures.values())}


def converse_document(
    *,
    text: str = "",
    reasoning: str = "",
    tools: Sequence[ToolCall] = (),
    usage: Usage,
    stop_reason: str = "",
) -> bytes:
    """Return the answer of Converse."""
    content: list[dict[str, Any]] = []
    if reasoning:
        content.append({"reasoningContent": {"reasoningText": {"text": reasoning, "signature": "c2ln"}}})
    if text:
        content.append({"text": text})
    content += [{"toolUse": {"toolUseId": id_, "name": name, "input": dict(arguments)}} for name, id_, arguments in tools]
    answer = {
        "metrics": {"latencyMs": 1200},
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": stop_reason or ("tool_use" if tools else "end_turn"),
        "usage": converse_usage(usage),
    }
    return json.dumps(answer).encode()


def converse_stream(
    *,
    text: Sequence[str] = (),
    reasoning: Sequence[str] = (),
    tools: Sequence[ToolCall] = (),
    usage: Usage,
    stop_reason: str = "",
) -> list[bytes]:
    """Return the events of ConverseStream; text and reasoning in the given pieces."""
    pieces = [aws_event("messageStart", {"role": "assistant"})]
    index = 0

    def block(deltas: Iterable[dict[str, Any]]) -> None:
        nonlocal index
        pieces.extend(aws_event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}) for delta in deltas)
        pieces.append(aws_event("contentBlockStop", {"contentBlockIndex": index}))
        index += 1

    if reasoning:
        block([*({"reasoningContent": {"text": part}} for part in reasoning), {"reasoningContent": {"signature": "c2ln"}}])
    if text:
        block({"text": part} for part in text)
    for name, id_, arguments in tools:
        start = {"toolUse": {"toolUseId": id_, "name": name}}
        pieces.append(aws_event("contentBlockStart", {"contentBlockIndex": index, "start": start}))
        block({"toolUse": {"input": part}} for part in _halves(json.dumps(dict(arguments))))
    pieces.append(aws_event("messageStop", {"stopReason": stop_reason or ("tool_use" if tools else "end_turn")}))
    pieces.append(aws_event("metadata", {"metrics": {"latencyMs": 1200}, "usage": converse_usage(usage)}))
    return pieces


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]]


# Gemini


def gemini_usage(usage: Usage) -> dict[str, Any]:
    """Return `usage` as `usageMetadata`: the prompt includes what was cached, the candidates exclude the thoughts."""
    cached, thoughts = usage.get("cache_read_input_tokens", 0), usage.get("reasoning_output_tokens", 0)
    prompt, candidates = usage.get("input_tokens", 0) + cached, usage.get("output_tokens", 0) - thoughts
    figures: dict[str, Any] = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": prompt + candidates + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }
    if cached:
        figures["cachedContentTokenCount"] = cached
    if thoughts:
        figures["thoughtsTokenCount"] = thoughts
    return figures


def gemini_chunks(
    *,
    text: Sequence[str] = (),
    reasoning: Sequence[str] = (),
    tools: Sequence[ToolCall] = (),
    usage: Usage,
    model: str = "gemini-2.5-pro",
    response_id: str = "Kq5oaN3jDpSqz7IP0",
    finish_reason: str = "STOP",
) -> list[dict[str, Any]]:
    """Return the `GenerateContentResponse`s of a stream: one for each piece, the last with the finish reason and the usage."""
    parts: list[dict[str, Any]] = [{"text": part, "thought": True} for part in reasoning]
    parts += [{"text": part} for part in text]
    for name, id_, arguments in tools:
        call: dict[str, Any] = {"name": name, "args": dict(arguments)}
        parts.append({"functionCall": {"id": id_, **call} if id_ else call})
    if not parts:
        parts.append({"text": ""})
    prompt = {"promptTokenCount": gemini_usage(usage)["promptTokenCount"]}
    chunks: list[dict[str, Any]] = [
        {
            "candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}],
            "usageMetadata": {**prompt, "totalTokenCount": prompt["promptTokenCount"]},
            "modelVersion": model,
            "responseId": response_id,
        }
        for part in parts
    ]
    chunks[-1]["candidates"][0]["finishReason"] = finish_reason
    chunks[-1]["usageMetadata"] = gemini_usage(usage)
    return chunks


def gemini_document(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the chunks of a stream as the one answer of `generateContent`."""
    last = json.loads(json.dumps(chunks[-1]))
    last["candidates"][0]["content"]["parts"] = [
        part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]
    ]
    return dict(last)


def gemini_event_stream(chunks: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Return a stream as `alt=sse` has it."""
    return [b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks]


def gemini_array(chunks: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return a stream as it is without `alt=sse`: one JSON array, written element by element."""
    pieces = [b",\r\n" + json.dumps(chunk, indent=2).encode() for chunk in chunks]
    pieces[0] = b"[" + pieces[0].removeprefix(b",\r\n")
    pieces.append(b"]")
    return pieces


def code_assist(chunks: Iterable[Mapping[str, Any]], trace_id: str = "5fe2a8c9d1b04e37") -> list[dict[str, Any]]:
    """Return chunks in the envelope of cloudcode-pa."""
    return [{"response": dict(chunk), "traceId": trace_id} for chunk in chunks]
