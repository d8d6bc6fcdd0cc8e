"""How a request is paid for."""

import enum


class Billing(enum.StrEnum):
    """Whether the provider charges by the token."""

    METERED = "metered"
    """By the token, to whoever owns the key."""
    SUBSCRIPTION = "subscription"
    """By a plan of the user: what the tokens would cost is a comparison, not a charge."""
