"""Which values of the `type` label a response's usage gives. Not the counting itself.

Four types are common to every API and disjoint. The further ones are an API's own and repeat parts of the four, as Coder's do:
whoever sums must choose by type. They are counted even when 0, so that a series exists as soon as its API is used.
"""

from collections.abc import Callable
from operator import attrgetter

from aiproxyd.model.usage import TokenUsage

_Amount = Callable[[TokenUsage], int]


def _extra(name: str) -> _Amount:
    return lambda usage: usage.extra.get(name, 0)


COMMON: dict[str, _Amount] = {
    "input": attrgetter("input_tokens"),
    "output": attrgetter("output_tokens"),
    "cache_read_input_tokens": attrgetter("cache_read_input_tokens"),
    "cache_write_input_tokens": attrgetter("cache_write_input_tokens"),
}

OF_API: dict[str, dict[str, _Amount]] = {
    "anthropic.messages": {
        "web_search_requests": _extra("web_search_requests"),
        "cache_creation_input": attrgetter("cache_write_input_tokens"),
        "cache_read_input": attrgetter("cache_read_input_tokens"),
        "cache_ephemeral_1h_input": attrgetter("cache_write_1h_input_tokens"),
        "cache_ephemeral_5m_input": attrgetter("cache_write_5m_input_tokens"),
    },
    "openai.chat_completions": {
        "prompt_audio": _extra("prompt_audio"),
        "prompt_cached": attrgetter("cache_read_input_tokens"),
        "completion_accepted_prediction": _extra("completion_accepted_prediction"),
        "completion_rejected_prediction": _extra("completion_rejected_prediction"),
        "completion_audio": _extra("completion_audio"),
        "completion_reasoning": attrgetter("reasoning_output_tokens"),
    },
    "openai.responses": {
        "input_cached": attrgetter("cache_read_input_tokens"),
        "output_reasoning": attrgetter("reasoning_output_tokens"),
        "total_tokens": lambda usage: usage.extra.get("total_tokens", usage.total_input_tokens + usage.output_tokens),
    },
}

_ALL = {api: COMMON | own for api, own in OF_API.items()}


def token_amounts(api: str, usage: TokenUsage) -> list[tuple[str, int]]:
    """Return each token type with its amount, never negative: the common ones, those of `api`, and what else `usage` reports."""
    known = _ALL.get(api, COMMON)
    amounts = [(name, count if (count := amount(usage)) > 0 else 0) for name, amount in known.items()]
    if usage.extra:
        amounts += [(name, max(0, count)) for name, count in usage.extra.items() if name not in known]
    return amounts
