"""Connections to the outside: a name is resolved once, every address is checked, and only a checked one is dialled.

That closes the window of DNS rebinding: there is no second look-up between the check and the connection. Through an upstream proxy
it cannot be closed: the proxy is asked for the name, because what it allows goes by names, and looks it up itself. So every address
that the name has here must be allowed then, not one of them.

Not the place where ports or names are allowed (`policy`), where addresses are judged (`addresses`), or where TLS is spoken (`tls`).

Fails closed: an address that cannot be understood is refused.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiohappyeyeballs import AddrInfoType, start_connection

from aiproxyd.config.network import parse_proxy_url
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.addresses import AddressRule
from aiproxyd.mitm.bridge import Bridges
from aiproxyd.mitm.limited import limited
from aiproxyd.mitm.names import Names
from aiproxyd.mitm.tls import proxy_context
from aiproxyd.mitm.upstream_proxy import DialFailed, UpstreamProxy, UpstreamProxySettings
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.host_list import HostList

# RFC 8305 §5: how long one address may stay silent before the next is tried beside it.
_HAPPY_EYEBALLS_SECONDS = 0.25

_CONNECTING = frozenset({errno.EINPROGRESS, errno.EALREADY})


class AddressBlocked(AiproxydError):
    """Every address of the destination is private or reserved. The client gets 403."""


class EgressSettings(msgspec.Struct, frozen=True):
    """All that a dial depends on besides its destination. Swapped whole at a reload."""

    allowed_private_cidrs: tuple[str, ...] = ()
    connect_timeout_seconds: float = 15.0
    """To resolve a name and connect to one of its addresses."""
    hosts: dict[str, str] = {}
    """Fixed `host: address[:port]` answers instead of the resolver's; exempt from the rule."""
    exempt: frozenset[Authority] = frozenset()
    """Authorities that an operator named as a provider's `base_url`; exempt from the rule."""
    upstream_proxy: UpstreamProxySettings | None = None
    """What everything goes through, but for what the next three say."""
    upstream_proxy_except: tuple[str, ...] = ()
    upstream_proxy_decrypted: bool = True
    upstream_proxy_resolves: bool = False

    @classmethod
    def of(cls, config: Config, *, exempt: Iterable[Authority] = ()) -> "EgressSettings":
        """Return the settings that `config` holds, with the authorities of its `base_url`s.

        Raises:
            CertificateError: `egress.upstream_proxy_ca_file` cannot be used.
        """
        egress = config.egress
        upstream_proxy = None
        if egress.upstream_proxy is not None:
            url = parse_proxy_url(egress.upstream_proxy.get_secret_value())
            context = proxy_context(egress.trust, egress.upstream_proxy_ca_file) if url.is_tls else None
            upstream_proxy = UpstreamProxySettings(url, context)
        return cls(
            upstream_proxy=upstream_proxy,
            upstream_proxy_except=egress.upstream_proxy_except,
            upstream_proxy_decrypted=egress.upstream_proxy_decrypted,
            upstream_proxy_resolves=egress.upstream_proxy_resolves,
            allowed_private_cidrs=egress.allowed_private_cidrs,
            connect_timeout_seconds=egress.connect_timeout_seconds,
            hosts=dict(egress.hosts),
            exempt=frozenset(exempt),
        )


class Egress:
    """Dials destinations."""

    def __init__(self, settings: EgressSettings) -> None:
        self._bridges = Bridges()
        self._names = Names()
        self._use(settings)

    @property
    def settings(self) -> EgressSettings:
        """The settings in use. Assign others to change them all at once."""
        return self._settings

    @settings.setter
    def settings(self, settings: EgressSettings) -> None:
        self._use(settings)

    def _use(self, settings: EgressSettings) -> None:
        self._rule = AddressRule(settings.allowed_private_cidrs)
        self._settings = settings
        self._direct = HostList(settings.upstream_proxy_except)
        self._proxy: UpstreamProxy | None = None
        if settings.upstream_proxy is not None:
            self._proxy = UpstreamProxy(settings.upstream_proxy, dial=self._dial_named, bridges=self._bridges)

    def close(self) -> None:
        """Close what is carried over TLS with an upstream proxy."""
        self._bridges.close()

    async def dial(self, authority: Authority, *, exempt: bool = False, decrypts: bool = False) -> socket.socket:
        """Return a connected, non-blocking socket to `authority`, directly or through the upstream proxy.

        Args:
            authority: The destination.
            exempt: Whether private and reserved addresses are allowed, because an operator named this destination.
            decrypts: Whether it is for decrypted traffic.

        Raises:
            AddressBlocked: No address of the destination may be dialled.
            DialFailed: None could be resolved or reached in time.
        """
        proxy = self._proxy_for(authority, decrypts=decrypts)
        if proxy is None:
            work = self._dial_directly(authority, exempt=exempt)
        else:
            work = self._dial_through(proxy, authority, exempt=exempt)
        try:
            return await limited(work, self._settings.connect_timeout_seconds)
        except TimeoutError:
            raise DialFailed("timeout") from None

    async def _dial_directly(self, authority: Authority, *, exempt: bool) -> socket.socket:
        return await self._connect(await self.candidates(authority, exempt=exempt))

    async def _dial_through(self, proxy: UpstreamProxy, authority: Authority, *, exempt: bool) -> socket.socket:
        await self._check(authority, exempt=exempt)
        return await proxy.connect(authority)

    async def dial_plain(self, authority: Authority) -> tuple[socket.socket, UpstreamProxy | None]:
        """Return a connection for a plain request to `authority`, and the proxy that it leads to instead, if it does.

        Raises:
            AddressBlocked: See `dial`.
            DialFailed: See `dial`.
        """
        proxy = self._proxy_for(authority, decrypts=False)
        if proxy is None:
            return await self.dial(authority), None
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                await self._check(authority, exempt=False)
                return await proxy.open(), proxy
        except TimeoutError:
            raise DialFailed("timeout") from None

    def _proxy_for(self, authority: Authority, *, decrypts: bool) -> UpstreamProxy | None:
        if self._proxy is None or (decrypts and not self._settings.upstream_proxy_decrypted) or authority in self._direct:
            return None
        return None if self._fixed(authority) is not None else self._proxy

    def _fixed(self, authority: Authority) -> str | None:
        hosts = self._settings.hosts
        return (hosts.get(authority.host) or hosts.get(str(authority))) if hosts else None

    async def _check(self, authority: Authority, *, exempt: bool) -> None:
        """Let pass what an upstream proxy may be asked for.

        Raises:
            AddressBlocked: It is or has a private or reserved address.
            DialFailed: The name cannot be resolved, and that is our business.
        """
        if exempt or authority in self._settings.exempt:
            return
        if not authority.is_address and self._settings.upstream_proxy_resolves:
            return
        for candidate in await self._resolve(authority):
            if not self._rule.allows(str(candidate[4][0])):
                raise AddressBlocked(f"{authority.host} has a private or reserved address")

    async def _dial_named(self, authority: Authority) -> socket.socket:
        """Connect to what the operator named, wherever it is."""
        return await self._dial_directly(authority, exempt=True)

    async def candidates(self, authority: Authority, *, exempt: bool = False) -> list[AddrInfoType]:
        """Return the addresses of `authority` that may be dialled; at least one. It waits for the resolver without a limit.

        Args:
            authority: The destination.
            exempt: Whether private and reserved addresses are allowed, because an operator named this destination.

        Raises:
            AddressBlocked: No address of the destination may be dialled.
            DialFailed: The name cannot be resolved.
        """
        exempt = exempt or authority in self._settings.exempt
        fixed = self._fixed(authority)
        if fixed is not None:
            host, port = parse_authority(fixed, default_port=authority.port)
            return [_literal(host, port)]
        found = await self._resolve(authority)
        allowed = [candidate for candidate in found if exempt or self._rule.allows(str(candidate[4][0]))]
        if not allowed:
            raise AddressBlocked(f"{authority.host} has private or reserved addresses alone")
        return allowed

    async def _resolve(self, authority: Authority) -> Sequence[AddrInfoType]:
        host, port = authority
        if authority.is_address:
            return [_literal(host, port)]
        try:
            found = await self._names.resolve(host, port)
        except (OSError, UnicodeError):  # UnicodeError: a label the resolver's encoding does not take
            raise DialFailed("resolve") from None
        if not found:
            raise DialFailed("resolve")
        return found

    async def _connect(self, candidates: list[AddrInfoType]) -> socket.socket:
        try:
            if len(candidates) == 1:
                connection = await _connect_one(candidates[0])
            else:
                connection = await start_connection(candidates, happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS)
        except ConnectionRefusedError:
            raise DialFailed("refused") from None
        except TimeoutError:
            raise DialFailed("timeout") from None
        except (OSError, RuntimeError) as exc:  # RuntimeError: uvloop's, for a socket it cannot watch
            unreachable = isinstance(exc, OSError) and exc.errno is not None
            raise DialFailed("unreachable" if unreachable else "other") from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


async def _connect_one(candidate: AddrInfoType) -> socket.socket:
    """Connect to the only address there is: no race to arrange, and half the cost."""
    family, kind, protocol, _, address = candidate
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await _connected(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connected(connection: socket.socket, address: tuple[Any, ...]) -> None:
    """Connect, as the loop's `sock_connect` does, but without asking the resolver about an address: uvloop's does, in a thread."""
    number = connection.connect_ex(address)
    if number == errno.EINPROGRESS:
        # On this machine it is done by now, and who asks again is told so; to be told by the loop costs twenty times as much.
        number = connection.connect_ex(address)
    if number in _CONNECTING:
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        descriptor = connection.fileno()
        loop.add_writer(descriptor, _set, writable)
        try:
            await writable
        finally:
            loop.remove_writer(descriptor)
        number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number and number != errno.EISCONN:
        raise OSError(number, os.strerror(number))


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _literal(host: str, port: int) -> AddrInfoType:
    if ":" in host:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
