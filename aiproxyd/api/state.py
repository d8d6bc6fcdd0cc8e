"""What the admin application shows and may ask for; control has it. No behaviour here."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry

from aiproxyd.api.access import AdminToken
from aiproxyd.api.live import LiveFeed
from aiproxyd.storage.store import Store


class ProviderFact(NamedTuple):
    """A provider as the configuration has it."""

    name: str
    type: str
    status: str
    """`enabled`, or why it is not in use."""
    reason: str
    hosts: tuple[str, ...]
    keys: Mapping[str, int]
    """How many of the entry's keys are in each state; empty for an entry without keys."""


class AdminState(Protocol):
    """The daemon as the admin server sees it. Everything is read at each request, so that a reload changes it."""

    @property
    def metrics_registry(self) -> CollectorRegistry:
        """Every metric of the daemon."""

    @property
    def metrics_credentials(self) -> tuple[str, ...]:
        """Values of `Authorization` that open `/metrics` besides the tokens; none when those alone do."""

    @property
    def tokens(self) -> Sequence[AdminToken]:
        """Who may ask; nobody needs a token while there is none."""

    @property
    def store(self) -> Store:
        """The records."""

    @property
    def live(self) -> LiveFeed:
        """What happens."""

    @property
    def proxy_listen(self) -> Sequence[str]:
        """Addresses of the proxy, with the ports it really has."""

    @property
    def configured_users(self) -> Sequence[tuple[str, Sequence[str]]]:
        """Name and groups of the users of the configuration."""

    @property
    def asks_for_users(self) -> bool:
        """Whether the proxy wants credentials at all."""

    def providers(self) -> Sequence[ProviderFact]:
        """Return every provider of the configuration."""

    def readiness(self) -> dict[str, tuple[bool, str]]:
        """Return every condition of readiness by name: whether it holds, and a word about its state."""

    def ca_pem(self) -> bytes:
        """Return PEM that begins with the CA's certificate."""

    async def reload(self) -> str:
        """Read the configuration again; return why it was not used, or nothing."""

    def users_changed(self) -> None:
        """Let every worker forget what it was told about tokens."""
