"""Gives a session the shape of Coder's answer: threads with agentic actions. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiproxyd.storage.sessions import SessionThreads, sum_of_figures

_FIGURES = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")

_JsonObject = dict[str, Any]


def detail_of_session(session: SessionThreads) -> _JsonObject:
    """Return a session with its threads."""
    summary = session.summary
    threads = [_thread(id_, records) for id_, records in session.threads]
    names = ("id", "initiator", "providers", "models", "client", "metadata")
    return {
        **{name: summary[name] for name in names},
        "page_started_at": min((thread["started_at"] for thread in threads), default=None),
        "page_ended_at": max((thread["ended_at"] for thread in threads), default=None),
        "started_at": summary["started_at"],
        "ended_at": summary["ended_at"],
        "token_usage_summary": summary["token_usage_summary"] | {"metadata": session.token_metadata},
        "cost_micros": summary["cost_micros"],
        "network_calls": summary["network_calls"],
        "threads": threads,
    }


def usage_of_records(records: Iterable[Mapping[str, Any]]) -> _JsonObject:
    """Return the token figures of interceptions, summed up."""
    usages = [usage for record in records for usage in record["token_usages"]]
    figures: _JsonObject = {name: sum(usage[name] for usage in usages) for name in _FIGURES}
    return figures | {"metadata": sum_of_figures(usage["metadata"] for usage in usages)}


def cost_of_records(records: Iterable[Mapping[str, Any]]) -> int | None:
    """Return what interceptions cost in micro-USD, as far as it is known; None when nothing is."""
    costs = [usage["cost_micros"] for record in records for usage in record["token_usages"]]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None


def _thread(id_: str, records: Sequence[_JsonObject]) -> _JsonObject:
    root = records[0]
    failed = next((record for record in reversed(records) if record["error_type"]), None)
    return {
        "id": id_,
        "prompt": root["user_prompts"][0]["prompt"] if root["user_prompts"] else None,
        "model": root["model"],
        "provider": root["provider"],
        "credential_kind": root["credential_kind"],
        "credential_hint": root["credential_hint"],
        "started_at": root["started_at"],
        "ended_at": max(record["ended_at"] for record in records),
        "token_usage": usage_of_records(records),
        "cost_micros": cost_of_records(records),
        "error_type": failed["error_type"] if failed else None,
        "error_message": failed["error_message"] if failed else None,
        "interceptions": [record["id"] for record in records],
        "agentic_actions": [_action(record) for record in records if record["tool_usages"]],
    }


def _action(record: _JsonObject) -> _JsonObject:
    return {
        "model": record["model"],
        "token_usage": usage_of_records([record]),
        "thinking": [{"text": thought["content"]} for thought in record["model_thoughts"]],
        "tool_calls": record["tool_usages"],
    }
