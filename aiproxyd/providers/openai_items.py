"""Output items of the Responses API: which are tool calls, who runs them, and with what arguments. Not a parser of bodies.

Source:
    https://developers.openai.com/api/reference/resources/responses/methods/create
    https://developers.openai.com/api/docs/guides/tools
"""

from typing import Final

import msgspec

from aiproxyd.model.events import ToolKind
from aiproxyd.providers import requests
from aiproxyd.providers.decoding import is_null, json_text, text_of

TOOL_KINDS: Final = {
    "function_call": ToolKind.FUNCTION,
    "custom_tool_call": ToolKind.CUSTOM,
    # Built-in tools that the client runs, with a JSON action for arguments.
    "local_shell_call": ToolKind.FUNCTION,
    "shell_call": ToolKind.FUNCTION,
    "apply_patch_call": ToolKind.FUNCTION,
    "computer_call": ToolKind.FUNCTION,
    # Built-in tools that the provider runs.
    "web_search_call": ToolKind.HOSTED,
    "file_search_call": ToolKind.HOSTED,
    "code_interpreter_call": ToolKind.HOSTED,
    "image_generation_call": ToolKind.HOSTED,
    "mcp_call": ToolKind.HOSTED,
    "tool_search_call": ToolKind.HOSTED,
    "program": ToolKind.HOSTED,
}
OTHER_ITEMS: Final = frozenset(
    {
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "additional_tools",
        "compaction",
        "compaction_summary",
        "context_compaction",
        "function_call_output",
        "custom_tool_call_output",
        "computer_call_output",
        "local_shell_call_output",
        "shell_call_output",
        "apply_patch_call_output",
        "tool_search_output",
        "program_output",
    }
)
"""Items that are known and hold nothing to record."""


class ItemText(msgspec.Struct):
    """A part of a message, or of a reasoning's summary or content."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class OutputItem(msgspec.Struct):
    """What the items of all known types have that is recorded."""

    type: str = ""
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    server_label: str | None = None
    arguments: msgspec.Raw = requests.NOTHING
    """A JSON string; an object in `tool_search_call`."""
    input: str | None = None
    code: str | None = None
    action: msgspec.Raw = requests.NOTHING
    actions: msgspec.Raw = requests.NOTHING
    operation: msgspec.Raw = requests.NOTHING
    queries: msgspec.Raw = requests.NOTHING
    revised_prompt: str | None = None
    phase: str | None = None
    content: list[ItemText] | None = None
    summary: list[ItemText] | None = None


def arguments_of(item: OutputItem) -> str:
    """Return the arguments of a complete tool item: JSON text, or the free text of a custom tool."""
    match item.type:
        case "custom_tool_call":
            return item.input or ""
        case "code_interpreter_call" | "program":
            return "" if item.code is None else msgspec.json.encode({"code": item.code}).decode()
        case "image_generation_call":
            return "" if item.revised_prompt is None else msgspec.json.encode({"prompt": item.revised_prompt}).decode()
        case "file_search_call":
            return "" if is_null(item.queries) else f'{{"queries":{json_text(item.queries)}}}'
        case _:
            for raw in (item.arguments, item.action, item.actions, item.operation):
                if not is_null(raw):
                    arguments = text_of(raw)
                    return json_text(raw) if arguments is None else arguments
            return ""
