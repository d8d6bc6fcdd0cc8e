"""Output items that are tool calls, and their arguments."""

import json
from typing import Any

import msgspec
import pytest

from aiproxyd.model.events import ToolKind
from aiproxyd.providers.openai_items import OTHER_ITEMS, TOOL_KINDS, OutputItem, arguments_of


@pytest.mark.parametrize(
    ("item", "arguments"),
    [
        ({"type": "function_call", "arguments": '{"a":1}'}, '{"a":1}'),
        ({"type": "function_call", "arguments": ""}, ""),
        ({"type": "function_call"}, ""),
        ({"type": "function_call", "arguments": {"a": 1}}, '{"a":1}'),
        ({"type": "custom_tool_call", "input": "free text"}, "free text"),
        ({"type": "custom_tool_call", "input": None}, ""),
        ({"type": "mcp_call", "arguments": "{}"}, "{}"),
        ({"type": "tool_search_call", "arguments": {"paths": ["a"]}}, '{"paths":["a"]}'),
        ({"type": "web_search_call", "action": {"type": "search", "query": "ä"}}, '{"type":"search","query":"ä"}'),
        ({"type": "web_search_call", "action": None}, ""),
        ({"type": "computer_call", "actions": [{"type": "wait"}]}, '[{"type":"wait"}]'),
        ({"type": "apply_patch_call", "operation": {"type": "delete_file"}}, '{"type":"delete_file"}'),
        ({"type": "file_search_call", "queries": ["a", "b"]}, '{"queries":["a","b"]}'),
        ({"type": "file_search_call"}, ""),
        ({"type": "code_interpreter_call", "code": 'print("a")'}, '{"code":"print(\\"a\\")"}'),
        ({"type": "code_interpreter_call", "code": None}, ""),
        ({"type": "program", "code": "x"}, '{"code":"x"}'),
        ({"type": "image_generation_call", "revised_prompt": "a cat"}, '{"prompt":"a cat"}'),
        ({"type": "image_generation_call"}, ""),
    ],
)
def test_the_arguments_of_a_whole_item(item: dict[str, Any], arguments: str) -> None:
    text = json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    assert arguments_of(msgspec.json.decode(text, type=OutputItem)) == arguments


def test_an_item_is_a_call_or_something_else_and_who_runs_it_is_known() -> None:
    assert not OTHER_ITEMS & set(TOOL_KINDS)
    assert {TOOL_KINDS[name] for name in ("web_search_call", "mcp_call", "code_interpreter_call")} == {ToolKind.HOSTED}
    assert {TOOL_KINDS[name] for name in ("function_call", "local_shell_call", "shell_call", "computer_call")} == {
        ToolKind.FUNCTION
    }
