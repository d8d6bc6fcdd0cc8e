"""Connections to the outside: a name is resolved once, every address is checked, and only a checked one is dialled.

That closes the window of DNS rebinding: there is no second look-up between the check and the connection. Not the place where
ports or names are allowed (`policy`), and not where TLS is spoken (`tls`).

Fails closed: an address that cannot be understood is refused.
"""

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiohappyeyeballs import AddrInfoType, start_connection

from aiproxyd.config.schema import Config
from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.names import Names
from aiproxyd.model.authority import Authority, parse_authority

type _Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type _Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DENIED: tuple[_Network, ...] = tuple(
    ipaddress.ip_network(cidr)
    for cidr in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        # Forms that carry an IPv4 address are taken apart below; whole, they are refused as well, because the translator
        # that would read them is a host of the network we are in.
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# RFC 8305 §5: how long one address may stay silent before the next is tried beside it.
_HAPPY_EYEBALLS_SECONDS = 0.25


class AddressBlocked(AiproxydError):
    """Every address of the destination is private or reserved. The client gets 403."""


class DialFailed(AiproxydError):
    """The destination cannot be reached. The client gets 502."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A bounded word: `resolve`, `timeout`, `refused`, `unreachable`, `other`."""


class EgressSettings(msgspec.Struct, frozen=True):
    """All that a dial depends on besides its destination. Swapped whole at a reload."""

    allowed_private_cidrs: tuple[str, ...] = ()
    connect_timeout_seconds: float = 15.0
    """To resolve a name and connect to one of its addresses."""
    hosts: dict[str, str] = {}
    """Fixed `host: address[:port]` answers instead of the resolver's; exempt from the rule."""
    exempt: frozenset[Authority] = frozenset()
    """Authorities that an operator named as a provider's `base_url`; exempt from the rule."""

    @classmethod
    def of(cls, config: Config, *, exempt: Iterable[Authority] = ()) -> "EgressSettings":
        """Return the settings that `config` holds, with the authorities of its `base_url`s."""
        return cls(
            allowed_private_cidrs=config.egress.allowed_private_cidrs,
            connect_timeout_seconds=config.egress.connect_timeout_seconds,
            hosts=dict(config.egress.hosts),
            exempt=frozenset(exempt),
        )


class AddressRule:
    """Which addresses may be dialled."""

    def __init__(self, allowed_private_cidrs: Iterable[str] = ()) -> None:
        self._allowed = tuple(ipaddress.ip_network(cidr) for cidr in allowed_private_cidrs)

    def allows(self, text: str) -> bool:
        """Return whether the address `text` is neither private nor reserved, or is exempt.

        Args:
            text: An IPv4 or IPv6 address, maybe with a zone; anything else is refused.
        """
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return all(not _is_in(form, _DENIED) or _is_in(form, self._allowed) for form in (address, *_embedded(address)))


class Egress:
    """Dials destinations."""

    def __init__(self, settings: EgressSettings) -> None:
        self._settings = settings
        self._rule = AddressRule(settings.allowed_private_cidrs)
        self._names = Names()

    @property
    def settings(self) -> EgressSettings:
        """The settings in use. Assign others to change them all at once."""
        return self._settings

    @settings.setter
    def settings(self, settings: EgressSettings) -> None:
        self._rule = AddressRule(settings.allowed_private_cidrs)
        self._settings = settings

    async def dial(self, authority: Authority, *, exempt: bool = False) -> socket.socket:
        """Return a connected, non-blocking TCP socket to `authority`.

        Args:
            authority: The destination.
            exempt: Whether private and reserved addresses are allowed, because an operator named this destination.

        Raises:
            AddressBlocked: No address of the destination may be dialled.
            DialFailed: None could be resolved or reached in time.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                candidates = await self.candidates(authority, exempt=exempt)
                connection = await self._connect(candidates)
        except TimeoutError:
            raise DialFailed("timeout") from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

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
        host, port = authority
        hosts = self._settings.hosts
        fixed = (hosts.get(host) or hosts.get(str(authority))) if hosts else None
        if fixed is not None:
            host, port = parse_authority(fixed, default_port=port)
            return [_literal(host, port)]
        if authority.is_address:
            found: Sequence[AddrInfoType] = [_literal(host, port)]
        else:
            try:
                found = await self._names.resolve(host, port)
            except (OSError, UnicodeError):  # UnicodeError: a label the resolver's encoding does not take
                raise DialFailed("resolve") from None
        allowed = [candidate for candidate in found if exempt or self._rule.allows(str(candidate[4][0]))]
        if found and not allowed:
            raise AddressBlocked(f"{authority.host} has private or reserved addresses alone")
        if not allowed:
            raise DialFailed("resolve")
        return allowed

    async def _connect(self, candidates: list[AddrInfoType]) -> socket.socket:
        try:
            if len(candidates) == 1:
                return await _connect_one(candidates[0])
            return await start_connection(candidates, happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS)
        except ConnectionRefusedError:
            raise DialFailed("refused") from None
        except TimeoutError:
            raise DialFailed("timeout") from None
        except (OSError, RuntimeError) as exc:  # RuntimeError: uvloop's, for a socket it cannot watch
            unreachable = isinstance(exc, OSError) and exc.errno is not None
            raise DialFailed("unreachable" if unreachable else "other") from None


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
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        descriptor = connection.fileno()
        loop.add_writer(descriptor, _set, writable)
        try:
            await writable
        finally:
            loop.remove_writer(descriptor)
        number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _literal(host: str, port: int) -> AddrInfoType:
    if ":" in host:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


def _embedded(address: _Address) -> tuple[_Address, ...]:
    """Return the IPv4 addresses that an IPv6 address carries: mapped, compatible, NAT64, 6to4, Teredo."""
    if address.version == 4:
        return ()
    found: list[_Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    elif address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    return tuple(found)


def _is_in(address: _Address, networks: Iterable[_Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
