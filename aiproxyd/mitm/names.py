"""Addresses of names, by the system's resolver, kept for a moment. What may be dialled is decided in `egress`, each time anew.

A tool opens several connections to one host in the same second, and a question to the resolver takes a thread and reads files or
the network. Failures are not kept.
"""

import asyncio
import socket
from collections.abc import Sequence

from aiohappyeyeballs import AddrInfoType

# As short as a record's time to live ever is in practice, so that who moves a host waits for nobody.
KEPT_SECONDS = 2.0
# Names are the clients' choice, so their number is bounded.
_MAX_KEPT = 1024


class Names:
    """The resolver and what it said last."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[float, Sequence[AddrInfoType]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """Return the addresses of `host`, as `getaddrinfo` orders them; waits for the resolver without a limit.

        Raises:
            OSError: There are none, or nobody who knows could be asked.
            UnicodeError: `host` has a label that the resolver's encoding does not take.
        """
        loop = asyncio.get_running_loop()
        kept = self._kept.get((host, port))
        if kept is not None and loop.time() < kept[0]:
            return kept[1]
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[host, port] = (loop.time() + KEPT_SECONDS, found)
        return found
