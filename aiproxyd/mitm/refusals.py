"""Log lines about clients that are refused; what is counted of them is told as observations, elsewhere."""

import logging
from collections import OrderedDict

log = logging.getLogger(__name__)


class RefusalLog:
    """Says that clients are refused, once a minute for each client and reason: a client that retries must not fill the disk."""

    # A line a minute for each is kept in mind; the oldest are forgotten.
    _MAX_KNOWN = 1024
    _QUIET_SECONDS = 60.0

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def note(self, client: str, reason: str, destination: str, now: float) -> None:
        """Log a refusal, or count it for the next line about the same.

        Args:
            client: Address.
            reason: A bounded word.
            destination: What was asked for.
            now: Seconds of a clock that never jumps.
        """
        said, silent = self._known.get((client, reason), (-self._QUIET_SECONDS, 0))
        if now - said < self._QUIET_SECONDS:
            self._known[client, reason] = (said, silent + 1)
            return
        self._known[client, reason] = (now, 0)
        self._known.move_to_end((client, reason))
        if len(self._known) > self._MAX_KNOWN:
            self._known.popitem(last=False)
        log.info("refused %s to %.100r: %s (%d more like it before)", client, destination, reason, silent)
