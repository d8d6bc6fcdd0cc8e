"""Takes what a client or a model said out of records, for those who may see figures alone. Pure.

Left out are prompts, arguments, reasoning and error messages (providers quote requests in them); names and counts stay.
"""

from collections.abc import Mapping
from typing import Any

_JsonObject = dict[str, Any]


def figures_of_interception(record: Mapping[str, Any]) -> _JsonObject:
    """Return an interception without content."""
    return dict(record) | {
        "error_message": None,
        "user_prompts": [dict(prompt) | {"prompt": None} for prompt in record["user_prompts"]],
        "tool_usages": [_figures_of_tool(tool) for tool in record["tool_usages"]],
        "model_thoughts": [dict(thought) | {"content": None} for thought in record["model_thoughts"]],
    }


def figures_of_session(summary: Mapping[str, Any]) -> _JsonObject:
    """Return a session of a list without content."""
    return dict(summary) | {"last_prompt": None}


def figures_of_detail(detail: Mapping[str, Any]) -> _JsonObject:
    """Return a session with its threads, without content."""
    return dict(detail) | {"threads": [_figures_of_thread(thread) for thread in detail["threads"]]}


def _figures_of_thread(thread: Mapping[str, Any]) -> _JsonObject:
    actions = [
        dict(action)
        | {
            "thinking": [{"text": None} for _ in action["thinking"]],
            "tool_calls": [_figures_of_tool(tool) for tool in action["tool_calls"]],
        }
        for action in thread["agentic_actions"]
    ]
    return dict(thread) | {"prompt": None, "error_message": None, "agentic_actions": actions}


def _figures_of_tool(tool: Mapping[str, Any]) -> _JsonObject:
    return dict(tool) | {"input": None, "invocation_error": ""}
