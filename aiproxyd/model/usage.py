"""Token counts of one response, as disjoint figures.

`input_tokens` never contains cached tokens, whatever the provider: Anthropic's wire figure excludes them, OpenAI's includes
them. Cache reads and writes stand beside it. Reasoning tokens are a part of `output_tokens`.
"""

import math

import msgspec

# No single response reports more; larger figures are a provider's mistake or an attack (coder's store refuses them too).
MAX_TOKENS = 10**12


class TokenUsage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a provider says a response cost, in tokens. A sum of two is again a usage; the default is its zero."""

    input_tokens: int = 0
    """Input tokens that were neither read from nor written to a cache."""
    output_tokens: int = 0
    """Every billed output token, reasoning included."""
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    """All cache writes, whatever their lifetime."""
    cache_write_5m_input_tokens: int = 0
    """The part of the cache writes that lives five minutes, where the provider tells."""
    cache_write_1h_input_tokens: int = 0
    """The part of the cache writes that lives one hour, where the provider tells."""
    reasoning_output_tokens: int = 0
    """The part of the output that was reasoning, where the provider tells."""
    extra: dict[str, int] = {}
    """Further figures by the names of `reference` metric types, such as `web_search_requests` or `completion_audio`."""

    @property
    def total_input_tokens(self) -> int:
        """Uncached, cache-read and cache-written input together, as OpenTelemetry counts."""
        return self.input_tokens + self.cache_read_input_tokens + self.cache_write_input_tokens

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        extra = dict(self.extra)
        for name, count in other.extra.items():
            extra[name] = extra.get(name, 0) + count
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens + other.cache_read_input_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens + other.cache_write_input_tokens,
            cache_write_5m_input_tokens=self.cache_write_5m_input_tokens + other.cache_write_5m_input_tokens,
            cache_write_1h_input_tokens=self.cache_write_1h_input_tokens + other.cache_write_1h_input_tokens,
            reasoning_output_tokens=self.reasoning_output_tokens + other.reasoning_output_tokens,
            extra=extra,
        )


def token_count(value: object) -> int:
    """Return `value` as a count in 0..MAX_TOKENS; anything that is no such number counts as 0."""
    if type(value) is not int:
        if type(value) is not float or not math.isfinite(value):
            return 0
        value = int(value)
    return value if 0 <= value <= MAX_TOKENS else max(0, min(value, MAX_TOKENS))
