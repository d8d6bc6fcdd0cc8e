"""What the tokens of a response cost, from its usage and a model's rates. Pure; where rates come from is not known here.

Facts:
- Amounts are micro-USD (1 USD = 1,000,000), whole numbers; rates are micro-USD per million units and may have a fraction.
- Providers charge by disjoint parts. A part without a rate of its own is charged as the one that contains it: a one-hour cache
  write as a cache write, a cache write or read as input, reasoning as output. So is audio, which OpenAI's conversations call
  `prompt_audio` and `completion_audio`, Google and transcriptions `input_audio` and `output_audio`: no usage has both.
- A long-context rate holds for every token of the request once its whole input, cached parts included, exceeds a threshold.

Strategy: the exact sum of all parts is rounded once, half up. Coder truncates each part, so a figure of ours may be higher by up
to four micro-USD; a sum of many ours is nearer to the provider's bill.

Unknown is not zero: a part that was used and for which no rate can be found leaves the whole without a cost.
"""

import datetime as dt
import enum
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, Protocol

import msgspec

from aiproxyd.model.billing import Billing
from aiproxyd.model.head import RequestHead
from aiproxyd.model.usage import TokenUsage

MICROS_PER_USD: Final = 1_000_000
STANDARD: Final = "standard"
"""The tier of replies that name none."""

CONFIGURATION: Final = "configuration"
"""Source of the rates of an override."""

UNITS: Final = 1_000_000
"""A rate is for so many units."""

MAX_COST_MICROS: Final = 10_000_000 * MICROS_PER_USD
"""No single response costs more; Coder's cap. A figure above it comes from a wrong count or a wrong rate and is no cost."""

_WHOLE: Final = Decimal(1)
_NOTHING: Final[Mapping[str, str]] = {}


class Part(enum.StrEnum):
    """What is charged apart."""

    INPUT = "input"
    OUTPUT = "output"
    CACHE_READ = "cache_read"
    CACHE_WRITE = "cache_write"
    """Cache writes of five minutes, and those whose lifetime is not told."""
    CACHE_WRITE_1H = "cache_write_1h"
    REASONING = "reasoning"
    INPUT_AUDIO = "input_audio"
    OUTPUT_AUDIO = "output_audio"
    WEB_SEARCH = "web_search"
    """Searches, not tokens."""
    REQUEST = "request"
    """One a response, where a provider charges for it."""


_CONTAINED_IN: Final = {
    Part.CACHE_READ: Part.INPUT,
    Part.CACHE_WRITE: Part.INPUT,
    Part.CACHE_WRITE_1H: Part.CACHE_WRITE,
    Part.REASONING: Part.OUTPUT,
    Part.INPUT_AUDIO: Part.INPUT,
    Part.OUTPUT_AUDIO: Part.OUTPUT,
}

# Charged where there is a rate, free where there is none: not every provider charges for them.
_OPTIONAL: Final = frozenset({Part.WEB_SEARCH, Part.REQUEST})


class Rate(msgspec.Struct, frozen=True):
    """What a million units of a part cost, in micro-USD."""

    base: Decimal
    above: tuple[tuple[int, Decimal], ...] = ()
    """Long-context rates, each with the number of input tokens above which it holds, ascending."""

    def at(self, input_tokens: int) -> Decimal:
        """Return the rate of a request with so many input tokens, cached ones included."""
        rate = self.base
        for threshold, higher in self.above:
            if input_tokens > threshold:
                rate = higher
        return rate


class Rates(msgspec.Struct, frozen=True):
    """A model's rates at one time, with where they come from."""

    parts: Mapping[Part, Rate]
    source: str
    """`configuration` for an override, else the name of a price list."""
    version: str
    """Of the source, so that a figure can be explained years later."""
    model: str = ""
    """How the source names the model: `provider/model`."""
    tier: str = ""
    """The service tier the rates are for; empty for the standard one."""

    def find(self, part: Part) -> Rate | None:
        """Return the rate of a part, or that of the part which contains it."""
        rate = self.parts.get(part)
        while rate is None and part in _CONTAINED_IN:
            part = _CONTAINED_IN[part]
            rate = self.parts.get(part)
        return rate


class Cost(msgspec.Struct, frozen=True):
    """What a response costs, and why."""

    micros: int
    """Micro-USD."""
    source: str
    version: str
    billing: Billing = Billing.METERED
    details: Mapping[str, object] = {}
    """JSON: the source's model, the tier, and each part with its units and its rate."""

    @property
    def basis(self) -> str:
        """`list_price`, or `list_price_equivalent` where a plan pays and the amount is a comparison."""
        return "list_price" if self.billing is Billing.METERED else "list_price_equivalent"


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be priced."""

    at: float
    """Unix time in seconds of the response's end: prices have dates."""
    provider: str
    """Name of the entry in the configuration."""
    provider_type: str
    host: str
    model: str
    """The model that answered; the one that was asked for when the reply named none."""
    usage: TokenUsage
    billing: Billing = Billing.METERED
    metadata: Mapping[str, str] = _NOTHING
    """What the reply says beside its figures: `service_tier`, `speed`, `inference_geo`."""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Rates an operator knows better."""

    provider: str = ""
    """Name or type of the provider; empty for any."""
    model: str
    """A model, or the beginning of its name with `*` behind it."""
    first_day: dt.date | None = None
    last_day: dt.date | None = None
    """Inclusive."""
    tier: str = ""
    """The service tier it is for: empty for any, `standard` for replies that name none."""
    parts: Mapping[Part, Rate]
    source: str = CONFIGURATION
    version: str = ""

    def covers(self, charge: Charge, day: dt.date, tier: str) -> bool:
        """Return whether it prices `charge`."""
        return (
            self.provider in {"", charge.provider, charge.provider_type}
            and (self.model == charge.model or (self.model.endswith("*") and charge.model.startswith(self.model[:-1])))
            and (self.first_day is None or self.first_day <= day)
            and (self.last_day is None or day <= self.last_day)
            and (self.tier in {"", tier} or (self.tier == STANDARD and not tier))
        )


class Pricer(Protocol):
    """Knows prices. Never waits, never raises."""

    def price(self, charge: Charge) -> Cost | None:
        """Return what a response costs, or None when that is not known."""


def units_of(usage: TokenUsage, priced: Mapping[Part, Rate]) -> Iterator[tuple[Part, int]]:
    """Yield the disjoint parts of `usage` that are not 0.

    Args:
        usage: What the provider reported.
        priced: The rates: what has none of its own stays in the part that contains it.
    """
    extra = usage.extra
    audio = extra.get("prompt_audio", 0) + extra.get("input_audio", 0) - extra.get("cached_audio", 0)
    audio_in = min(max(0, audio), usage.input_tokens) if Part.INPUT_AUDIO in priced else 0
    audio = extra.get("completion_audio", 0) + extra.get("output_audio", 0)
    audio_out = min(audio, usage.output_tokens) if Part.OUTPUT_AUDIO in priced else 0
    reasoning = min(usage.reasoning_output_tokens, usage.output_tokens - audio_out) if Part.REASONING in priced else 0
    write_1h = min(usage.cache_write_1h_input_tokens, usage.cache_write_input_tokens)
    for part, units in (
        (Part.INPUT, usage.input_tokens - audio_in),
        (Part.INPUT_AUDIO, audio_in),
        (Part.CACHE_READ, usage.cache_read_input_tokens),
        (Part.CACHE_WRITE, usage.cache_write_input_tokens - write_1h),
        (Part.CACHE_WRITE_1H, write_1h),
        (Part.OUTPUT, usage.output_tokens - audio_out - reasoning),
        (Part.OUTPUT_AUDIO, audio_out),
        (Part.REASONING, reasoning),
        (Part.WEB_SEARCH, usage.extra.get("web_search_requests", 0)),
        (Part.REQUEST, 1),
    ):
        if units > 0:
            yield part, units


def cost_of(
    usage: TokenUsage, rates: Rates, *, billing: Billing = Billing.METERED, multiplier: Decimal = Decimal(1)
) -> Cost | None:
    """Return what `usage` costs at `rates`, or None when a part that was used has no rate.

    Args:
        usage: What the provider reported.
        rates: Those of the model, at the time, for the tier.
        billing: Kept in the result.
        multiplier: On tokens, not on searches: some providers charge more where inference stays in a region.
    """
    input_tokens = usage.total_input_tokens
    if usage.extra.get("audio_milliseconds") and not input_tokens and not usage.output_tokens:
        # Charged by time, for which there are no rates.
        return None
    total = Decimal(0)
    parts: dict[str, object] = {}
    for part, units in units_of(usage, rates.parts):
        rate = rates.find(part)
        if rate is None:
            if part in _OPTIONAL:
                continue
            return None
        micros = rate.at(input_tokens)
        if part not in _OPTIONAL:
            micros *= multiplier
        parts[str(part)] = [units, _number(micros)]
        total += micros * units
    amount = int((total / UNITS).quantize(_WHOLE, ROUND_HALF_UP))
    if amount > MAX_COST_MICROS:
        return None
    details: dict[str, object] = {"parts": parts}
    if rates.model:
        details["model"] = rates.model
    if rates.tier:
        details["tier"] = rates.tier
    return Cost(amount, rates.source, rates.version, billing, details)


def billing_of(provider_type: str, host: str, head: RequestHead) -> Billing:
    """Return how a request is paid for, from what it shows.

    ChatGPT's and Copilot's hosts serve plans alone, and so does Google's Code Assist. Anthropic's plans sign in with OAuth, whose
    tokens begin with `sk-ant-oat`; its keys begin otherwise.

    Source:
        https://developers.openai.com/codex/auth
        https://code.claude.com/docs/en/authentication
        https://docs.github.com/en/copilot/concepts/billing
    """
    if provider_type in {"chatgpt", "copilot"} or host == "cloudcode-pa.googleapis.com":
        return Billing.SUBSCRIPTION
    if provider_type == "anthropic" and head.headers.first("x-api-key") is None:
        scheme, _, credential = (head.headers.first("authorization") or "").strip().partition(" ")
        if scheme.lower() == "bearer" and credential.lstrip().startswith("sk-ant-oat"):
            return Billing.SUBSCRIPTION
    return Billing.METERED


def _number(value: Decimal) -> int | str:
    """Return `value` as JSON that loses nothing."""
    return int(value) if value == value.to_integral_value() else format(value.normalize(), "f")
