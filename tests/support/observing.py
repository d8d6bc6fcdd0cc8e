"""What tests of the data plane look at instead of a journal, and a clock they set."""

import itertools

from aiproxyd.classify import Provider
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.report import Reporter
from aiproxyd.model.authority import Authority
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.observation import Observation
from aiproxyd.model.principal import Principal


class KeptJournal:
    """Keeps what it is told, and how much of it was flushed."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.durable = 0

    def append(self, observation: Observation) -> None:
        self.observations.append(observation)

    def flush(self) -> None:
        self.durable = len(self.observations)


class SteppedReporter(Reporter):
    """A reporter whose clocks stand still until a test moves them, and whose ids count from 1."""

    def __init__(self, journal: KeptJournal) -> None:
        super().__init__(journal)
        self.seconds = 100.0
        self._numbers = itertools.count(1)

    def now(self) -> float:
        return 1_700_000_000.0 + self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def new_id(self) -> str:
        return f"id-{next(self._numbers)}"


PRINCIPAL = Principal(id="0c5f7a5e-0000-5000-8000-000000000001", name="ada", groups=("research",))


def connection_to(host: str, provider_type: str, endpoints: tuple[Endpoint, ...]) -> DecryptedConnection:
    """A decrypted connection of `ada` to the provider at `host`."""
    provider = Provider(name=provider_type, type=provider_type, authorities=((host, 443),), endpoints=endpoints)
    return DecryptedConnection(id="connection-1", authority=Authority(host, 443), provider=provider, principal=PRINCIPAL)
