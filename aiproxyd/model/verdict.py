"""What is to happen with a CONNECT."""

import enum

import msgspec

from aiproxyd.model.principal import Principal


class Action(enum.StrEnum):
    """The three answers to a CONNECT."""

    DECRYPT = "decrypt"
    TUNNEL = "tunnel"
    REFUSE = "refuse"


class Verdict(msgspec.Struct, frozen=True):
    """An action with its reason; for REFUSE also the answer the client gets."""

    action: Action
    reason: str
    """A word for metrics and logs: `provider`, `no_provider`, `port`, `missing_credentials`, …. Bounded."""
    principal: Principal | None = None
    """Who is charged; None when nobody was asked for."""
    provider: str = ""
    """Name of the provider that claims the authority; empty when none does."""
    status_code: int = 0
    """Status of a refusal: 400, 403, 407, 502 or 503. 0 otherwise."""
    message: str = ""
    """A sentence for the person or the agent that reads the refusal's body."""
