import pytest
from prometheus_client import CollectorRegistry

from aiproxyd.key_pool import KeyState
from aiproxyd.model.observation import BreakerChanged, BreakerRejected, KeyFailover, KeyPoolExhausted, KeyStateChanged
from aiproxyd.telemetry.coder import CoderMetrics, Limits
from aiproxyd.telemetry.upstream_series import UpstreamSeries

PREFIX = "coder_ai_gateway_"


class Rig:
    def __init__(self, limits=Limits()):
        self.registry = CollectorRegistry()
        self.series = UpstreamSeries(CoderMetrics(self.registry), limits)

    def value(self, name, **labels):
        return self.registry.get_sample_value(PREFIX + name, labels)

    def breaker(self, state, *, worker="w1", model="m", at=1.0):
        changed = BreakerChanged(at=at, provider="a", endpoint="/v1/messages", model=model, state=state)
        self.series.breaker_changed(worker, changed)

    def state(self, model="m"):
        return self.value("circuit_breaker_state", provider="a", endpoint="/v1/messages", model=model)


@pytest.fixture
def rig():
    return Rig()


def pool(valid, temporary=0, permanent=0):
    return {KeyState.VALID: valid, KeyState.TEMPORARY: temporary, KeyState.PERMANENT: permanent}


def test_keys_are_counted_by_state_and_vanish_with_their_entry(rig):
    rig.series.set_key_pools({"a": pool(1, 2, 1), "b": pool(1)})
    states = [rig.value("key_pool_state", provider="a", state=state) for state in ("valid", "temporary", "permanent")]
    assert states == [1, 2, 1]
    rig.series.set_key_pools({"a": pool(4)})
    assert rig.value("key_pool_state", provider="a", state="temporary") == 0
    assert rig.value("key_pool_state", provider="b", state="valid") is None


def test_what_happens_to_keys_is_counted(rig):
    for reason in ("rate_limited", "rate_limited", "unauthorized", "made-up"):
        rig.series.key_changed(KeyStateChanged(at=1, provider="a", state="temporary", reason=reason))
    rig.series.exhausted(KeyPoolExhausted(at=1, provider="a", outcome="rate_limited"))
    for attempts in (1, 2, 5):
        rig.series.answered(KeyFailover(at=1, provider="a", attempts=attempts))
    assert rig.value("key_pool_state_transitions_total", provider="a", reason="rate_limited") == 2
    assert rig.value("key_pool_state_transitions_total", provider="a", reason="unauthorized") == 1
    assert rig.value("key_pool_state_transitions_total", provider="a", reason="other") == 1
    assert rig.value("key_pool_exhaustions_total", provider="a", outcome="rate_limited") == 1
    assert rig.value("key_pool_failover_attempts_bucket", provider="a", le="1.0") == 1
    assert rig.value("key_pool_failover_attempts_bucket", provider="a", le="2.0") == 2
    assert rig.value("key_pool_failover_attempts_bucket", provider="a", le="4.0") == 2
    assert rig.value("key_pool_failover_attempts_count", provider="a") == 3


def test_a_breaker_shows_its_worst_worker(rig):
    rig.breaker("open")
    rig.breaker("open", worker="w2")
    assert rig.state() == 1
    rig.breaker("half_open")
    assert rig.state() == 1
    rig.series.worker_lost("w2")
    assert rig.state() == 0.5
    rig.breaker("closed")
    assert rig.state() == 0
    assert rig.value("circuit_breaker_trips_total", provider="a", endpoint="/v1/messages", model="m") == 2


def test_a_worker_that_is_gone_holds_no_breaker_open(rig):
    rig.breaker("open")
    rig.series.worker_lost("w1")
    rig.series.worker_lost("w1")
    assert rig.state() == 0


def test_refused_requests_are_counted(rig):
    for _ in range(3):
        rig.series.rejected(BreakerRejected(at=1, provider="a", endpoint="/v1/messages", model=""))
    assert rig.value("circuit_breaker_rejects_total", provider="a", endpoint="/v1/messages", model="unknown") == 3


def test_models_that_clients_invent_make_no_endless_series():
    rig = Rig(Limits(breakers=12, endpoints=2))
    for number in range(100):
        rig.breaker("open", model=f"model-{number}")
    families = [family for family in rig.registry.collect() if family.name == PREFIX + "circuit_breaker_state"]
    assert len(families[0].samples) == 11
    assert rig.state("other") == 1
