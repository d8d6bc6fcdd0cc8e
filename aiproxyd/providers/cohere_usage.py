"""Usage figures as Cohere reports them, turned into ours. Not a parser of bodies.

Facts: `billed_units` are what is charged, `tokens` what the model saw, which is more by the framing of the prompt. Searches and
classifications are charged by units of their own.

Source:
    https://docs.cohere.com/reference/chat
    https://docs.cohere.com/reference/embed
"""

import msgspec

from aiproxyd.model.usage import TokenUsage, token_count
from aiproxyd.providers.decoding import Count


class Units(msgspec.Struct):
    """One set of figures."""

    input_tokens: Count = None
    output_tokens: Count = None
    search_units: Count = None
    image_tokens: Count = None


class Usage(msgspec.Struct):
    """The `usage` of a chat, or the `meta` of other answers."""

    billed_units: Units | None = None
    tokens: Units | None = None
    cached_tokens: Count = None


def token_usage(usage: Usage) -> TokenUsage | None:
    """Return the billed figures, or those of the model where none are billed; None where there are neither."""
    for units in (usage.billed_units, usage.tokens):
        if units is None:
            continue
        images, searches = token_count(units.image_tokens), token_count(units.search_units)
        tokens, output = token_count(units.input_tokens), token_count(units.output_tokens)
        if tokens or output or images or searches:
            named = (("input_image", images), ("search_units", searches), ("cached_tokens", token_count(usage.cached_tokens)))
            extra = {name: count for name, count in named if count}
            return TokenUsage(input_tokens=tokens + images, output_tokens=output, extra=extra)
    return None
