"""0 requests missed and 0 tokens off, over every transcript, every SDK and a mixed load; `make accounting` is the long form."""

import pytest

from tests.accounting import mixed, replayed, sdk_clients
from tests.accounting.table import table
from tests.support import replays
from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider

MIXED_REQUESTS = 500


@pytest.mark.timeout(300)
def test_nothing_is_missed_and_nothing_is_off(own_daemon, provider: FakeProvider, engine: str) -> None:
    daemon: Daemon = own_daemon(workers=2, config={"providers": replays.PROVIDERS, "decrypt": {"engine": engine}})
    rows = replayed.replay(daemon)
    # Models of the SDKs' requests are those of the run before on the same provider: only one engine's entries may count.
    if engine == "relay":
        rows += sdk_clients.run(daemon, provider)
    prefix = f"mixed-{engine}-"
    rows += mixed.run(daemon, provider, MIXED_REQUESTS, prefix=prefix)
    assert all(row.is_exact for row in rows), table(rows)
    assert sum(mixed.outcomes(daemon, prefix).values()) == MIXED_REQUESTS
    intercepted = sum(row.requests for row in rows)
    daemon.wait_for_metric(intercepted, "coder_ai_gateway_accounting_outcomes_total")
    daemon.wait_for_metric(0, "coder_ai_gateway_interceptions_inflight")
