"""Says in the log what an operator can do something about: handshakes that fail, on either side.

A listener of observations. The same trouble is said once a minute, with how often it was met meanwhile: a client that does not
trust us retries dozens of times.
"""

from collections import OrderedDict

import structlog

from aiproxyd.model.observation import ClientTlsFailed, Observation, UpstreamTlsFailed

log = structlog.get_logger(__name__)

QUIET_SECONDS = 60.0

# So many different troubles are kept apart; the one that was quiet longest is forgotten.
MAX_KNOWN = 512

_CLIENT_REMEDY = "start it from a shell with `aiproxyd env`; docs/clients.md says which variable each tool reads"
_UPSTREAM_REMEDY = "if a private CA signs for it, name that CA in egress.trusted_ca_file; verification cannot be turned off"
_UNTRUSTING = frozenset({"unknown_ca", "bad_certificate", "closed"})


class TroubleLog:
    """Logs failed handshakes with what to do about them."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def observe(self, worker_id: str, observation: Observation) -> None:  # noqa: ARG002  (a sink's signature)
        """Take one observation; most are none of ours."""
        if isinstance(observation, ClientTlsFailed):
            remedy = _CLIENT_REMEDY if observation.reason in _UNTRUSTING else ""
            self._say("a client did not complete TLS with us", observation, remedy)
        elif isinstance(observation, UpstreamTlsFailed):
            remedy = _UPSTREAM_REMEDY if observation.reason == "untrusted" else ""
            self._say("TLS with a provider failed", observation, remedy)

    def worker_lost(self, worker_id: str) -> None:
        """Nothing to do: handshakes of a dead worker are over."""

    def _say(self, event: str, failed: ClientTlsFailed | UpstreamTlsFailed, remedy: str) -> None:
        trouble = (event, failed.host, failed.reason)
        said_at, silent = self._known.get(trouble, (float("-inf"), 0))
        if failed.at - said_at < QUIET_SECONDS:
            self._known[trouble] = (said_at, silent + 1)
            return
        self._known[trouble] = (failed.at, 0)
        self._known.move_to_end(trouble)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        facts = {"host": failed.host, "reason": failed.reason, "detail": failed.detail, "remedy": remedy}
        log.warning(event, **{name: value for name, value in facts.items() if value}, again=silent)
