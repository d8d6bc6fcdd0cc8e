"""Hypothesis strategies: responses of each API, made from their grammars together with what they mean.

The meaning is made first, as a summary in the shape of `tests.support.transcripts`, and written down in every way the API and the
event stream allow: pieces cut anywhere, calls interleaved, names of events left out, comments, several data lines, any line ending.
"""

import json
from typing import Any

from hypothesis import strategies as st

from aiproxyd.wire.event_stream import EventStreamDecoder, ServerSentEvent
from tests.support.transcripts import RESULT_DEFAULTS
from tests.support.wire_formats import aws_event, bedrock_invoke_stream, converse_usage

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_words = st.text("abcdefghij_", min_size=1, max_size=8)
_counts = st.integers(0, 10**6)
_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=5,
)
_arguments = st.dictionaries(_words, _json_values, max_size=3).map(lambda value: json.dumps(value, separators=(",", ":")))


@st.composite
def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def _interleaved(draw: st.DrawFn, sequences: list[list[Any]]) -> list[Any]:
    """Items of all sequences, each sequence in its own order."""
    queues = [list(sequence) for sequence in sequences if sequence]
    out: list[Any] = []
    while queues:
        queue = queues[draw(st.integers(0, len(queues) - 1))]
        out.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    return out


@st.composite
def _written(draw: st.DrawFn, events: list[tuple[str, Any]], *, may_omit_names: bool) -> bytes:
    """An event stream that says `events`; data that is text already stays as it is."""
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    omits_names = may_omit_names and draw(st.booleans())
    lines: list[str] = []
    for name, data in events:
        style = draw(st.sampled_from(["compact", "plain", "ascii", "indented", "extra"]))
        if isinstance(data, str):
            text = data
        else:
            written = {"obfuscation": [{"a": 1.5e3}, None, "\\"], **data} if style == "extra" else data
            text = json.dumps(
                written,
                ensure_ascii=style == "ascii",
                indent=1 if style == "indented" else None,
                separators=(",", ":") if style == "compact" else None,
            )
        # A lone line ending inside the text cannot occur: JSON writes it as an escape.
        if draw(st.integers(0, 5)) == 0:
            lines.append(": comment")
        if name and not omits_names:
            lines.append(f"event: {name}")
        lines += [("data: " if draw(st.booleans()) or part.startswith(" ") else "data:") + part for part in text.split("\n")]
        lines.append("")
    mark = "\ufeff" if draw(st.booleans()) else ""
    return (mark + "".join(line + ending for line in lines)).encode()


def _tool(name: str, call_id: str, arguments: str, kind: str = "function", item_id: str = "") -> dict[str, str]:
    return {"name": name, "kind": kind, "arguments": arguments, "call_id": call_id} | ({"item_id": item_id} if item_id else {})


def _figures(**figures: int) -> dict[str, int]:
    return {name: count for name, count in figures.items() if count}


@st.composite
def message_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and an Anthropic stream that says it."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": [], "response_id": "msg_1", "response_model": "m"}
    blocks: list[list[tuple[str, Any]]] = []
    for index in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["text", "thinking", "tool_use", "server_tool_use", "redacted_thinking"]))
        text = draw(_arguments if "tool" in kind else _texts)
        block: dict[str, Any] = {"type": kind}
        match kind:
            case "text":
                block["text"] = ""
                delta = ("text_delta", "text")
                found["text_characters"] += len(text)
            case "thinking":
                block["thinking"] = ""
                delta = ("thinking_delta", "thinking")
                if text:
                    found["thoughts"].append({"source": "thinking", "content": text})
            case "redacted_thinking":
                block["data"] = text
                delta = ("signature_delta", "signature")
            case _:
                block |= {"id": f"toolu_{index}", "name": draw(_words), "input": {}}
                delta = ("input_json_delta", "partial_json")
                tool_kind = "function" if kind == "tool_use" else "hosted"
                found["tools"].append(_tool(block["name"], block["id"], text, tool_kind))
        blocks.append(
            [
                ("content_block_start", {"type": "content_block_start", "index": index, "content_block": block}),
                *(
                    (
                        "content_block_delta",
                        {"type": "content_block_delta", "index": index, "delta": {"type": delta[0], delta[1]: piece}},
                    )
                    for piece in draw(_pieces(text))
                ),
                ("content_block_stop", {"type": "content_block_stop", "index": index}),
            ]
        )
    start = {name: draw(_counts) for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")}
    written_5m, written_1h = draw(_counts), draw(_counts)
    start["cache_creation_input_tokens"] = written_5m + written_1h
    split = {"ephemeral_5m_input_tokens": written_5m, "ephemeral_1h_input_tokens": written_1h}
    end: dict[str, Any] = {"output_tokens": draw(_counts)}
    for name in ("input_tokens", "cache_read_input_tokens"):
        if draw(st.booleans()):
            # Zeros here are a gateway's way to say nothing, which is a row of its own.
            end[name] = draw(st.none() | st.integers(1, 10**6))
    totals = start | {name: count for name, count in end.items() if count is not None}
    found["usage"] = _figures(
        input_tokens=totals["input_tokens"],
        output_tokens=totals["output_tokens"],
        cache_read_input_tokens=totals["cache_read_input_tokens"],
        cache_write_input_tokens=totals["cache_creation_input_tokens"],
        cache_write_5m_input_tokens=written_5m,
        cache_write_1h_input_tokens=written_1h,
    ) | {"extra": {"web_search_requests": 0, "cache_ephemeral_5m_input": written_5m, "cache_ephemeral_1h_input": written_1h}}
    found |= {"usage_final": True, "finish_reason": "end_turn", "ended": True, "complete": True}
    events: list[tuple[str, Any]] = [
        (
            "message_start",
            {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": start | {"cache_creation": split}}},
        ),
        *draw(_interleaved(blocks)),
        ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end}),
        ("message_stop", {"type": "message_stop"}),
    ]
    for _ in range(draw(st.integers(0, 2))):
        events.insert(draw(st.integers(0, len(events))), ("ping", {"type": "ping"}))
    return found, draw(_written(events, may_omit_names=True))


@st.composite
def chunk_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and a chat completion stream that says it."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": [], "response_id": "chatcmpl-1", "response_model": "m"}
    reasoning, text = draw(_texts), draw(_texts)
    name = draw(st.sampled_from(["reasoning_content", "reasoning", "reasoning_text"]))
    if reasoning:
        found["thoughts"].append({"source": "reasoning_content", "content": reasoning})
    found["text_characters"] = len(text)
    deltas: list[dict[str, Any]] = [{name: piece} for piece in draw(_pieces(reasoning))]
    deltas += [{"content": piece} for piece in draw(_pieces(text))]
    first = draw(st.integers(0, 1))
    calls: list[list[dict[str, Any]]] = []
    tools: list[dict[str, str]] = []
    for index in range(draw(st.integers(0, 3))):
        arguments = draw(_arguments)
        tool = _tool(draw(_words), f"call_{index}", arguments)
        tools.append(tool)
        head = {
            "index": index + first,
            "id": tool["call_id"],
            "type": "function",
            "function": {"name": tool["name"], "arguments": ""},
        }
        calls.append(
            [head, *({"index": index + first, "function": {"arguments": piece}} for piece in draw(_pieces(arguments)))]
        )
    pieces = draw(_interleaved(calls))
    deltas += [{"tool_calls": [piece]} for piece in pieces]
    found["tools"] = tools
    prompt, cached, output = draw(st.integers(1, 10**6)), draw(_counts), draw(_counts)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    place = draw(st.sampled_from(["none", "last", "finish", "every"]))
    chunks: list[dict[str, Any]] = []
    for number, delta in enumerate(deltas):
        chunk = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        if place == "every":
            chunk["usage"] = usage | {"completion_tokens": min(number, output)}
        chunks.append(chunk)
    finish: dict[str, Any] = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if place in {"finish", "every"}:
        finish["usage"] = usage
    chunks.append(finish)
    if place == "last":
        chunks.append({"id": "chatcmpl-1", "model": "m", "choices": [], "usage": usage})
    if place != "none":
        extra = (
            "prompt_audio",
            "completion_accepted_prediction",
            "completion_rejected_prediction",
            "completion_audio",
            "completion_reasoning",
        )
        found["usage"] = _figures(
            input_tokens=max(0, prompt - cached), output_tokens=output, cache_read_input_tokens=cached
        ) | {"extra": dict.fromkeys(extra, 0)}
        found["usage_final"] = True
    found |= {"finish_reason": "stop", "ended": True, "complete": True}
    events: list[tuple[str, Any]] = [("", chunk) for chunk in chunks]
    if draw(st.booleans()):
        events.append(("", "[DONE]"))
    return found, draw(_written(events, may_omit_names=False))


@st.composite
def response_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and a Responses stream that says it."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": [], "response_id": "resp_1", "response_model": "m"}
    sequences: list[list[tuple[str, Any]]] = []
    output: list[dict[str, Any]] = []
    for index in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["message", "commentary", "reasoning", "function_call", "custom_tool_call"]))
        sequence: list[tuple[str, Any]] = []

        def say(name: str, index: int = index, sequence: list[tuple[str, Any]] = sequence, **data: Any) -> None:
            sequence.append((name, {"type": name, "output_index": index} | data))

        item: dict[str, Any] = {"id": f"item_{index}"}
        match kind:
            case "message" | "commentary":
                text = draw(_texts)
                item |= {
                    "type": "message",
                    "role": "assistant",
                    "phase": "commentary" if kind == "commentary" else "final_answer",
                }
                whole = item | {"content": [{"type": "output_text", "text": text}]}
                say("response.output_item.added", item=item | {"content": []})
                for piece in draw(_pieces(text)):
                    say("response.output_text.delta", content_index=0, delta=piece)
                say("response.output_text.done", content_index=0, text=text)
                if kind == "message":
                    found["text_characters"] += len(text)
                elif text:
                    found["thoughts"].append({"source": "commentary", "content": text})
            case "reasoning":
                texts = draw(st.lists(_texts, max_size=2))
                item |= {"type": "reasoning"}
                whole = item | {"summary": [{"type": "summary_text", "text": text} for text in texts]}
                say("response.output_item.added", item=item | {"summary": []})
                for number, text in enumerate(texts):
                    for piece in draw(_pieces(text)):
                        say("response.reasoning_summary_text.delta", summary_index=number, delta=piece)
                    say("response.reasoning_summary_text.done", summary_index=number, text=text)
                    if text:
                        found["thoughts"].append({"source": "reasoning_summary", "content": text})
            case _:
                arguments = draw(_arguments)
                item |= {"type": kind, "call_id": f"call_{index}", "name": draw(_words)}
                field, event = (
                    ("arguments", "function_call_arguments") if kind == "function_call" else ("input", "custom_tool_call_input")
                )
                whole = item | {field: arguments}
                say("response.output_item.added", item=item | {field: ""})
                if draw(st.booleans()):
                    for piece in draw(_pieces(arguments)):
                        say(f"response.{event}.delta", delta=piece)
                    say(f"response.{event}.done", **{field: arguments})
                tool_kind = "function" if kind == "function_call" else "custom"
                found["tools"].append(_tool(item["name"], item["call_id"], arguments, tool_kind, item["id"]))
        say("response.output_item.done", item=whole)
        output.append(whole)
        sequences.append(sequence)
    whole_input, cached, written, tokens = draw(_counts), draw(_counts), draw(_counts), draw(_counts)
    reasoning = draw(st.integers(0, tokens))
    usage = {
        "input_tokens": whole_input,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": whole_input + tokens,
    }
    found["usage"] = _figures(
        input_tokens=max(0, whole_input - cached - written),
        output_tokens=tokens,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=written,
        reasoning_output_tokens=reasoning,
    ) | {"extra": {"output_reasoning": reasoning, "total_tokens": whole_input + tokens}}
    found |= {"usage_final": True, "finish_reason": "completed", "ended": True, "complete": True}
    base = {"id": "resp_1", "model": "m", "error": None}
    final = base | {"status": "completed", "usage": usage, "output": output if draw(st.booleans()) else []}
    events: list[tuple[str, Any]] = [
        ("response.created", {"type": "response.created", "response": base | {"status": "in_progress", "output": []}}),
        *draw(_interleaved(sequences)),
        ("response.completed", {"type": "response.completed", "response": final}),
    ]
    return found, draw(_written(events, may_omit_names=True))


@st.composite
def gemini_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and a Gemini stream that says it, as an event stream or as an array."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": [], "response_id": "r1", "response_model": "m"}
    parts: list[dict[str, Any]] = []
    in_thought = False
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["text", "thought", "functionCall", "executableCode", "inlineData"]))
        text = draw(_texts)
        match kind:
            case "text":
                parts.append({"text": text})
                found["text_characters"] += len(text)
            case "thought":
                parts.append({"text": text, "thought": True})
                if text and in_thought:
                    found["thoughts"][-1]["content"] += text
                elif text:
                    found["thoughts"].append({"source": "thinking", "content": text})
            case "functionCall":
                arguments = draw(_arguments)
                call = {"name": draw(_words), "args": _Verbatim(arguments)}
                call_id = draw(st.sampled_from(["", "fc_1"]))
                parts.append({"functionCall": call | ({"id": call_id} if call_id else {})})
                found["tools"].append(
                    {"name": call["name"], "kind": "function", "arguments": arguments}
                    | ({"call_id": call_id} if call_id else {})
                )
            case "executableCode":
                code = json.dumps({"language": "PYTHON", "code": text}, separators=(",", ":"))
                parts.append({"executableCode": _Verbatim(code)})
                found["tools"].append({"name": "code_execution", "kind": "hosted", "arguments": code})
            case _:
                parts.append({"inlineData": {"mimeType": "image/png", "data": text}})
        # Neither an empty text nor an image ends a thought.
        in_thought = (in_thought or bool(text)) if kind == "thought" else in_thought and (kind == "inlineData" or not text)
        in_thought = in_thought and kind not in {"functionCall", "executableCode"}
    prompt, cached, candidates, thoughts, tool_use = (draw(st.integers(1, 10**6)), *(draw(_counts) for _ in range(4)))
    figures = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": candidates,
        "thoughtsTokenCount": thoughts,
        "toolUsePromptTokenCount": tool_use,
        "totalTokenCount": prompt + candidates + thoughts + tool_use,
    }
    found["usage"] = _figures(
        input_tokens=max(0, prompt - cached) + tool_use,
        output_tokens=candidates + thoughts,
        cache_read_input_tokens=cached,
        reasoning_output_tokens=thoughts,
    ) | {"extra": {"tool_use_prompt": tool_use}}
    found |= {"usage_final": True, "finish_reason": "STOP", "ended": True, "complete": True}
    chunks: list[dict[str, Any]] = []
    while parts:
        count = draw(st.integers(1, len(parts)))
        chunks.append({"candidates": [{"content": {"parts": parts[:count], "role": "model"}, "index": 0}]})
        parts = parts[count:]
        if draw(st.booleans()):
            chunks[-1]["usageMetadata"] = {"promptTokenCount": prompt, "totalTokenCount": prompt}
    chunks.append({"candidates": [{"finishReason": "STOP"}], "usageMetadata": figures})
    for chunk in chunks:
        chunk |= {"responseId": "r1", "modelVersion": "m"}
    if draw(st.booleans()):
        chunks = [{"response": chunk, "traceId": "t"} for chunk in chunks]
    if draw(st.booleans()):
        return found, draw(_written([("", _written_json(chunk)) for chunk in chunks], may_omit_names=False))
    return found, b"[" + b",\r\n".join(_written_json(chunk).encode() for chunk in chunks) + b"]"


class _Verbatim(str):
    """JSON text that is written as it is."""

    __slots__ = ()


def _written_json(value: Any) -> str:
    """Return `value` as JSON, compact, with what is verbatim in it left alone."""
    match value:
        case _Verbatim():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{_written_json(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_written_json, value)) + "]"
        case _:
            return json.dumps(value)


@st.composite
def converse_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and a ConverseStream that says it."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": []}
    blocks: list[list[bytes]] = []
    for index in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["text", "reasoning", "tool"]))
        place = {"contentBlockIndex": index}
        block: list[bytes] = []
        if kind == "tool":
            arguments = draw(_arguments)
            found["tools"].append(_tool(draw(_words), f"tooluse_{index}", arguments))
            start = {"toolUse": {"toolUseId": f"tooluse_{index}", "name": found["tools"][-1]["name"]}}
            block.append(aws_event("contentBlockStart", {**place, "start": start}))
            deltas: list[dict[str, Any]] = [{"toolUse": {"input": piece}} for piece in draw(_pieces(arguments))]
        else:
            text = draw(_texts)
            if kind == "text":
                found["text_characters"] += len(text)
                deltas = [{"text": piece} for piece in draw(_pieces(text))]
            else:
                deltas = [{"reasoningContent": {"text": piece}} for piece in draw(_pieces(text))]
                deltas.append({"reasoningContent": {"signature": "c2ln"}})
                if text:
                    found["thoughts"].append({"source": "thinking", "content": text})
        block += [aws_event("contentBlockDelta", {**place, "delta": delta, "p": "abc"}) for delta in deltas]
        block.append(aws_event("contentBlockStop", place))
        blocks.append(block)
    figures = {
        name: draw(_counts) for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    }
    if any(figures.values()):
        found["usage"] = _figures(**figures) | {"extra": {}}
        found["usage_final"] = True
    found |= {"finish_reason": "end_turn", "ended": True, "complete": True}
    messages = [
        aws_event("messageStart", {"role": "assistant"}),
        *draw(_interleaved(blocks)),
        aws_event("messageStop", {"stopReason": "end_turn"}),
        aws_event("metadata", {"usage": converse_usage(figures), "metrics": {"latencyMs": 7}}),
    ]
    return found, b"".join(messages)


@st.composite
def invoke_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and an InvokeModelWithResponseStream of an Anthropic model that says it."""
    found, stream = draw(message_streams())
    events = [json.loads(event.data) for event in _events_of(stream)]
    usage = found["usage"]
    return found, b"".join(
        bedrock_invoke_stream(events, {name: usage.get(name, 0) for name in ("input_tokens", "output_tokens")})
    )


def _events_of(stream: bytes) -> list[ServerSentEvent]:
    decoder = EventStreamDecoder(len(stream) + 1)
    return decoder.feed(stream) + decoder.close()


@st.composite
def interaction_streams(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A summary, and a stream of Google's interactions that says it."""
    found: dict[str, Any] = RESULT_DEFAULTS | {"thoughts": [], "tools": [], "response_id": "v1_1", "response_model": "m"}
    steps: list[list[tuple[str, Any]]] = []
    for index in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["model_output", "thought", "function_call", "google_search_call"]))
        text = draw(_texts if kind in {"model_output", "thought"} else _arguments)
        step: dict[str, Any] = {"type": kind}
        match kind:
            case "model_output":
                found["text_characters"] += len(text)
                deltas: list[dict[str, Any]] = [{"type": "text", "text": piece} for piece in draw(_pieces(text))]
            case "thought":
                if text:
                    found["thoughts"].append({"source": "thinking", "content": text})
                contents = [{"type": "text", "text": piece} for piece in draw(_pieces(text))]
                deltas = [{"type": "thought_summary", "content": content} for content in contents]
            case "function_call":
                step |= {"id": f"fc_{index}", "name": draw(_words), "arguments": {}}
                found["tools"].append(_tool(step["name"], step["id"], text))
                deltas = [{"type": "arguments_delta", "arguments": piece} for piece in draw(_pieces(text))]
            case _:
                step |= {"id": f"gs_{index}", "arguments": {}}
                queries = json.dumps({"queries": ["a b"]}, separators=(",", ":"))
                found["tools"].append(_tool("google_search", step["id"], queries, "hosted"))
                deltas = [{"type": kind, "arguments": json.loads(queries)}]
        steps.append(
            [
                ("step.start", {"event_type": "step.start", "index": index, "step": step}),
                *(("step.delta", {"event_type": "step.delta", "index": index, "delta": delta}) for delta in deltas),
                ("step.stop", {"event_type": "step.stop", "index": index}),
            ]
        )
    whole, cached, output, thoughts = draw(st.integers(1, 10**6)), draw(_counts), draw(_counts), draw(_counts)
    usage = {
        "total_input_tokens": whole,
        "total_cached_tokens": cached,
        "total_output_tokens": output,
        "total_thought_tokens": thoughts,
        "total_tokens": whole + output + thoughts,
    }
    found["usage"] = _figures(
        input_tokens=max(0, whole - cached),
        output_tokens=output + thoughts,
        cache_read_input_tokens=cached,
        reasoning_output_tokens=thoughts,
    ) | {"extra": {"tool_use_prompt": 0}}
    found |= {"usage_final": True, "finish_reason": "completed", "ended": True, "complete": True}
    interaction = {"id": "v1_1", "model": "m", "status": "in_progress"}
    completed = {"id": "v1_1", "status": "completed", "usage": usage}
    events: list[tuple[str, Any]] = [
        ("interaction.created", {"event_type": "interaction.created", "interaction": interaction}),
        *draw(_interleaved(steps)),
        ("interaction.completed", {"event_type": "interaction.completed", "interaction": completed}),
    ]
    if draw(st.booleans()):
        events.append(("", "[DONE]"))
    return found, _compact(events)


def _compact(events: list[tuple[str, Any]]) -> bytes:
    """Return an event stream whose JSON has no white space, since objects in it are kept as they were sent."""
    texts = [data if isinstance(data, str) else json.dumps(data, separators=(",", ":")) for _, data in events]
    return "".join(
        (f"event: {name}\n" if name else "") + f"data: {text}\n\n" for (name, _), text in zip(events, texts, strict=True)
    ).encode()
