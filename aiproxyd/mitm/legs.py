"""The connections of one courier to where its requests go: dialled, made safe, used again, and given up.

Not a pool: they belong to one client's connection, so that nobody's answers can reach anybody else.
"""

import asyncio
import socket
from collections.abc import Callable

from aiproxyd.mitm.egress import AddressBlocked, Egress
from aiproxyd.mitm.leg import Destination, Leg, LegFailed, LegUser
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.tls import UpstreamTls
from aiproxyd.mitm.upstream_proxy import DialFailed

# A client of the reverse listener may speak with several providers over one connection; more are closed when they are idle.
MAX_IDLE_LEGS = 4


class Legs:
    """The connections of one courier."""

    def __init__(self, user: LegUser, *, egress: Egress, tls: UpstreamTls, settings: RelaySettings) -> None:
        self._user = user
        self._egress = egress
        self._tls = tls
        self._tls_timeout_seconds = settings.upstream_tls_timeout_seconds
        self._max_head_bytes = settings.max_head_bytes
        self._adopted: tuple[Leg, asyncio.Task[None]] | None = None
        self._idle: dict[Destination, Leg] = {}
        self._in_use: set[Leg] = set()
        self._is_closed = False

    def adopt(self, connection: socket.socket, destination: Destination, on_secured: Callable[[], None]) -> None:
        """Take over a connected socket, begin TLS on it at once, and call `on_secured` when that is done."""
        leg = self._make(connection, destination)
        self._adopted = leg, asyncio.get_running_loop().create_task(self._secure_early(leg, on_secured))

    async def _secure_early(self, leg: Leg, on_secured: Callable[[], None]) -> None:
        await leg.secure(self._tls_timeout_seconds)
        on_secured()
        # Nobody knows when the first request comes, and the other side may not wait so long.
        leg.is_used = True
        leg.resume()

    async def take(self, destination: Destination, *, timeout_seconds: float | None, fresh: bool = False) -> Leg:
        """Return a connection to `destination` for one request.

        Args:
            destination: Where to.
            timeout_seconds: To connect, TLS included; None for the limits of all providers.
            fresh: Whether it must not have been used before.

        Raises:
            LegFailed: There is none to be had.
        """
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            leg, securing = adopted
            try:
                await securing
            except LegFailed:
                if leg.destination == destination:
                    raise
            else:
                self._idle[leg.destination] = leg
        known = self._idle.pop(destination, None)
        if known is not None and known.is_between and not (fresh and known.is_used):
            return known
        if known is not None:
            self.drop(known)
        try:
            async with asyncio.timeout(timeout_seconds):
                leg = self._make(await dial(self._egress, destination), destination)
                await leg.secure(self._tls_timeout_seconds)
        except TimeoutError:
            sentence = f"{destination.authority} cannot be reached from this proxy in time"
            raise LegFailed(sentence, detail="timeout") from None
        return leg

    def keep(self, leg: Leg) -> None:
        """Have a connection ready for another request: the answer on it is whole."""
        leg.is_used = True
        before = self._idle.pop(leg.destination, None)
        if before is not None:
            self.drop(before)
        self._idle[leg.destination] = leg
        if len(self._idle) > MAX_IDLE_LEGS:
            self.drop(self._idle.pop(next(iter(self._idle))))
        leg.resume()  # its end is noticed by reading

    def drop(self, leg: Leg, *, reset: bool = False) -> None:
        """Close a connection. May be called again."""
        if self._idle.get(leg.destination) is leg:
            del self._idle[leg.destination]
        self._in_use.discard(leg)
        leg.close(reset=reset)

    def close(self, *, reset: bool = False) -> None:
        """Close all, and those that are on their way."""
        self._is_closed = True
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            adopted[1].cancel()
            adopted[1].add_done_callback(_ignore)
        self._idle.clear()
        for leg in tuple(self._in_use):
            self.drop(leg, reset=reset)

    def _make(self, connection: socket.socket, destination: Destination) -> Leg:
        leg = Leg(connection, destination, self._user, tls=self._tls, max_head_bytes=self._max_head_bytes)
        self._in_use.add(leg)
        if self._is_closed:
            self.drop(leg)
        return leg


def _ignore(securing: asyncio.Task[None]) -> None:
    if not securing.cancelled():
        securing.exception()


async def dial(egress: Egress, destination: Destination) -> socket.socket:
    """Return a socket that is connected to `destination`.

    Raises:
        LegFailed: It cannot be reached, or not from here.
    """
    authority = destination.authority
    try:
        return await egress.dial(authority, exempt=destination.is_exempt, decrypts=True)
    except AddressBlocked:
        sentence = f"{authority.host} is at a private or reserved address; ask the operator for egress.allowed_private_cidrs"
        raise LegFailed(sentence, status_code=403, detail="address") from None
    except DialFailed as exc:
        failed = "cannot be resolved" if exc.reason == "resolve" else "cannot be reached"
        raise LegFailed(f"{authority} {failed} from this proxy", detail=f"dial_{exc.reason}") from None
