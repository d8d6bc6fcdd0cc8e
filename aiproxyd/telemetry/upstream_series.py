"""What is counted of providers' keys and of circuit breakers. Not their rules: `key_pool` and `breaker` have those.

Keys are the daemon's: workers tell each other what they learn, so control knows the one state of each. Breakers are a worker's own,
and the gauge shows the worst. The labels of breakers come from clients, as far as they name models; they are bounded by how many
breakers there may be, and beyond that the model is `other`.
"""

from collections.abc import Mapping

from aiproxyd.key_pool import KeyState
from aiproxyd.model.observation import BreakerChanged, BreakerRejected, KeyFailover, KeyPoolExhausted, KeyStateChanged
from aiproxyd.telemetry.coder import LIMITS, CoderMetrics, Limits
from aiproxyd.telemetry.families import OTHER, label_text

_STATE_VALUES = {"closed": 0.0, "half_open": 0.5, "open": 1.0}

# In these, transitions are told; a word that is none of them is from a newer worker.
_REASONS = frozenset({"rate_limited", "unauthorized", "forbidden"})
_OUTCOMES = frozenset({"rate_limited", "auth_failed"})

BreakerLabels = tuple[str, str, str]


class UpstreamSeries:
    """The families of key pools and circuit breakers. Total, as the sink is."""

    def __init__(self, coder: CoderMetrics, limits: Limits = LIMITS) -> None:
        self._coder = coder
        # Endpoints are the operator's or the package's; each may need one place for `other`.
        self._places = limits.breakers - limits.endpoints
        self._admitted: set[BreakerLabels] = set()
        self._breakers: dict[BreakerLabels, dict[str, float]] = {}
        """Value of each breaker by worker, where it is not closed."""
        self._pools: set[str] = set()

    def set_key_pools(self, counts: Mapping[str, Mapping[KeyState, int]]) -> None:
        """Show how many keys of each provider entry are in each state; entries that have none any more vanish."""
        for provider, states in counts.items():
            for state, count in states.items():
                self._coder.key_pool_state.labels(provider, state.value).set(count)
        for provider in self._pools - counts.keys():
            for state in KeyState:
                self._coder.key_pool_state.remove(provider, state.value)
        self._pools = set(counts)

    def key_changed(self, changed: KeyStateChanged) -> None:
        """Count a key that became unusable."""
        reason = changed.reason if changed.reason in _REASONS else OTHER
        self._coder.key_pool_transitions.labels(changed.provider, reason).inc()

    def exhausted(self, exhausted: KeyPoolExhausted) -> None:
        """Count a request for which no key was left."""
        outcome = exhausted.outcome if exhausted.outcome in _OUTCOMES else OTHER
        self._coder.key_pool_exhaustions.labels(exhausted.provider, outcome).inc()

    def answered(self, failover: KeyFailover) -> None:
        """Count the keys that a request tried."""
        self._coder.key_pool_attempts.labels(failover.provider).observe(max(0, failover.attempts))

    def breaker_changed(self, worker_id: str, changed: BreakerChanged) -> None:
        """Show a breaker's state, and count it when it opened."""
        labels = self._labels(changed.provider, changed.endpoint, changed.model)
        value = _STATE_VALUES.get(changed.state, 0.0)
        workers = self._breakers.setdefault(labels, {})
        if value:
            workers[worker_id] = value
        else:
            workers.pop(worker_id, None)
        if changed.state == "open":
            self._coder.breaker_trips.labels(*labels).inc()
        self._show(labels)

    def rejected(self, rejected: BreakerRejected) -> None:
        """Count a request that a breaker refused."""
        labels = self._labels(rejected.provider, rejected.endpoint, rejected.model)
        self._coder.breaker_rejects.labels(*labels).inc()

    def worker_lost(self, worker_id: str) -> None:
        """Forget the breakers of a worker that is gone."""
        for labels in [labels for labels, workers in self._breakers.items() if workers.pop(worker_id, None) is not None]:
            self._show(labels)

    def _show(self, labels: BreakerLabels) -> None:
        workers = self._breakers[labels]
        self._coder.breaker_state.labels(*labels).set(max(workers.values(), default=0.0))
        if not workers:
            del self._breakers[labels]

    def _labels(self, provider: str, endpoint: str, model: str) -> BreakerLabels:
        labels = (provider, endpoint, label_text(model))
        if labels not in self._admitted:
            if len(self._admitted) >= self._places:
                return (provider, endpoint, OTHER)
            self._admitted.add(labels)
        return labels
