"""Says in the log what an operator can do something about: providers that cannot be reached, handshakes that fail, keys that are not
accepted, breakers that open.

A listener of observations. The same trouble is said once a minute, with how often it was met meanwhile: a client that does not
trust us retries dozens of times.
"""

from collections import OrderedDict

import structlog

from aiproxyd.model.observation import (
    BreakerChanged,
    ClientTlsFailed,
    ConnectDecided,
    KeyPoolExhausted,
    KeyStateChanged,
    Observation,
    UpstreamTlsFailed,
)
from aiproxyd.model.verdict import Action

log = structlog.get_logger(__name__)

QUIET_SECONDS = 60.0

# So many different troubles are kept apart; the one that was quiet longest is forgotten.
MAX_KNOWN = 512

_CLIENT_REMEDY = "start it from a shell with `aiproxyd env`; docs/clients.md says which variable each tool reads"
_UPSTREAM_REMEDY = "if a private CA signs for it, name that CA in egress.trusted_ca_file; verification cannot be turned off"
_KEY_REMEDY = "replace it; the key is not used until the configuration is loaded again"
_POOL_REMEDIES = {
    "rate_limited": "add a key, or have its limit raised",
    "auth_failed": "replace the keys; they are not used until the configuration is loaded again",
}
_ADDRESS_REMEDY = "allow its network in egress.allowed_private_cidrs, or name the host in the base_url of the provider's entry"
_UNRESOLVED_REMEDY = "see whether this machine resolves the name; egress.hosts fixes an address for it"
_DIAL_REMEDY = "see whether this machine may connect there; docs/troubleshooting.md lists the reasons"
_TROUBLES = frozenset({ClientTlsFailed, UpstreamTlsFailed, KeyStateChanged, KeyPoolExhausted, BreakerChanged, ConnectDecided})
_UNTRUSTING = frozenset({"unknown_ca", "bad_certificate", "closed"})


class TroubleLog:
    """Logs troubles with what to do about them."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()

    def observe(self, worker_id: str, observation: Observation) -> None:  # noqa: ARG002  (a sink's signature)
        """Take one observation; most are none of ours."""
        if type(observation) not in _TROUBLES:
            return
        match observation:
            case ClientTlsFailed(at=at, host=host, reason=reason, detail=detail):
                remedy = _CLIENT_REMEDY if reason in _UNTRUSTING else ""
                self._say(
                    "a client did not complete TLS with us",
                    at,
                    (host, reason),
                    host=host,
                    reason=reason,
                    detail=detail,
                    remedy=remedy,
                )
            case UpstreamTlsFailed(at=at, host=host, reason=reason, detail=detail):
                remedy = _UPSTREAM_REMEDY if reason == "untrusted" else ""
                self._say(
                    "TLS with a provider failed", at, (host, reason), host=host, reason=reason, detail=detail, remedy=remedy
                )
            case KeyStateChanged(at=at, provider=provider, state="permanent", reason=reason, credential_hint=hint):
                self._say(
                    "a key is not accepted",
                    at,
                    (provider, hint),
                    provider=provider,
                    key=hint,
                    reason=reason,
                    remedy=_KEY_REMEDY,
                )
            case KeyPoolExhausted(at=at, provider=provider, outcome=outcome):
                remedy = _POOL_REMEDIES.get(outcome, "")
                self._say(
                    "no key was left for a request", at, (provider, outcome), provider=provider, outcome=outcome, remedy=remedy
                )
            case BreakerChanged(at=at, provider=provider, endpoint=endpoint, model=model, state="open"):
                self._say(
                    "a circuit breaker opened",
                    at,
                    (provider, endpoint, model),
                    provider=provider,
                    endpoint=endpoint,
                    model=model,
                )
            case ConnectDecided(action=Action.DECRYPT, reason=reason) if reason == "address" or reason.startswith("dial_"):
                host = observation.host
                self._say(
                    "a provider cannot be reached",
                    observation.at,
                    (host, reason),
                    host=host,
                    provider=observation.provider,
                    reason=reason,
                    remedy=_remedy_of_dial(reason),
                )
            case _:
                pass

    def worker_lost(self, worker_id: str) -> None:
        """Nothing to do: the troubles of a dead worker are over."""

    def _say(self, event: str, at: float, same: tuple[str, ...], **facts: str) -> None:
        """Log `event`, unless it was said a moment ago.

        Args:
            event: What happened.
            at: When, Unix time.
            same: What makes two of them the same trouble.
            facts: To be logged; empty ones are not.
        """
        trouble = (event, *same)
        said_at, silent = self._known.get(trouble, (float("-inf"), 0))
        if at - said_at < QUIET_SECONDS:
            self._known[trouble] = (said_at, silent + 1)
            return
        self._known[trouble] = (at, 0)
        self._known.move_to_end(trouble)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        log.warning(event, **{name: value for name, value in facts.items() if value}, again=silent)


def _remedy_of_dial(reason: str) -> str:
    if reason == "address":
        return _ADDRESS_REMEDY
    return _UNRESOLVED_REMEDY if reason == "dial_resolve" else _DIAL_REMEDY
