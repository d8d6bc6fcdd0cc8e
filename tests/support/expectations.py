"""How a record must look, given what the provider's ledger says it answered."""

import json
from typing import Any

from tests.support.ledger import Entry


def tokens_of(record: dict[str, Any]) -> dict[str, int]:
    """Return the token figures of a record, summed over its rows."""
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    return {name: sum(row[name] for row in record["token_usages"]) for name in names}


def prompts_of(record: dict[str, Any]) -> list[str]:
    """Return the prompts of a record."""
    return [row["prompt"] for row in record["user_prompts"]]


def tools_of(record: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return name, call id and arguments of each tool call of a record, in order."""
    return [(row["tool"], row["tool_call_id"], _value(row["input"])) for row in record["tool_usages"]]


def thoughts_of(record: dict[str, Any]) -> list[str]:
    """Return the reasoning of a record, in order."""
    return [row["content"] for row in record["model_thoughts"]]


def _value(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments


def assert_matches(record: dict[str, Any], entry: Entry, *, prompt: str | None = None, outcome: str = "completed") -> None:
    """Assert that `record` says exactly what `entry` knows.

    Args:
        record: As the command line prints it.
        entry: The provider's own account of the same request.
        prompt: The last user prompt; None when the request had none.
        outcome: The expected outcome.
    """
    assert record["outcome"] == outcome, record
    assert record["model"] == entry.model
    assert record["ended_at"]
    assert prompts_of(record) == ([] if prompt is None else [prompt])
    if entry.usage:
        expected = {name: count for name, count in entry.usage.items() if name != "reasoning_output_tokens"}
        assert tokens_of(record) == expected
        assert {row["provider_response_id"] for row in record["token_usages"]} == {entry.response_id}
        assert record["usage_source"] == "reported"
    assert tools_of(record) == [(call["name"], call["call_id"], json.loads(call["arguments"])) for call in entry.tool_calls]
    assert thoughts_of(record) == entry.thoughts
