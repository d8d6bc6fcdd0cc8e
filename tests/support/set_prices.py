"""Costs that a test sets, so that a price that changes is seen in sums."""

from aiproxyd.model.billing import Billing
from aiproxyd.pricing import Charge, Cost


class Prices:
    """So many micro-USD an output token, and nothing for one model."""

    def __init__(self, rate: int, unknown: str = "") -> None:
        self.rate = rate
        self.unknown = unknown

    def price(self, charge: Charge) -> Cost | None:
        """Return what `charge` costs; None for the model that has no price."""
        if charge.model == self.unknown:
            return None
        return Cost(charge.usage.output_tokens * self.rate, "test", str(self.rate), Billing.METERED, {})
