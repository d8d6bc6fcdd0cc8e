"""Which addresses may be dialled: everything but what is private, reserved or special, unless an operator exempts it. Nothing is resolved here.

Source: the IANA registries of special-purpose addresses (https://www.iana.org/assignments/iana-ipv4-special-registry/ and
https://www.iana.org/assignments/iana-ipv6-special-registry/, of October 2025), whatever they do not mark as globally reachable, and
multicast. Of a block that is reserved as a whole, the few addresses in it that are reachable are refused with it: nobody serves there.

Fails closed: what cannot be understood is refused.
"""

import functools
import ipaddress
from collections.abc import Iterable

type _Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type _Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DENIED: tuple[_Network, ...] = tuple(
    ipaddress.ip_network(cidr)
    for cidr in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, with the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "::/128",  # unspecified
        "::1/128",  # loopback
        # Forms that carry an IPv4 address are taken apart below; whole, they are refused as well, because the translator
        # that would read them is a host of the network we are in.
        "::ffff:0:0:0/96",  # IPv4-translated (SIIT)
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local
        "100::/64",  # discard
        "100:0:0:1::/64",  # dummy
        "2001::/23",  # protocol assignments, with Teredo, benchmarks and ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",  # multicast
    )
)
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_CARRY_IPV4_AT_THEIR_END = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96"))

# Addresses are the clients' choice, so the number of those that are remembered is bounded.
_MAX_JUDGED = 1024


class AddressRule:
    """Which addresses may be dialled."""

    def __init__(self, allowed_private_cidrs: Iterable[str] = ()) -> None:
        self._allowed = tuple(ipaddress.ip_network(cidr) for cidr in allowed_private_cidrs)
        self._remembered = functools.lru_cache(_MAX_JUDGED)(self._judge)

    def allows(self, text: str) -> bool:
        """Return whether the address `text` is neither private nor reserved, or is exempt.

        Args:
            text: An IPv4 or IPv6 address, maybe with a zone; anything else is refused.
        """
        return self._remembered(text)

    def _judge(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return all(not _is_in(form, _DENIED) or _is_in(form, self._allowed) for form in (address, *_embedded(address)))


def _embedded(address: _Address) -> tuple[_Address, ...]:
    """Return the IPv4 addresses that an IPv6 address carries: mapped, translated, compatible, NAT64, 6to4, Teredo."""
    if address.version == 4:
        return ()
    found: list[_Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    elif _is_in(address, _CARRY_IPV4_AT_THEIR_END) or (address in _IPV4_COMPATIBLE and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    return tuple(found)


def _is_in(address: _Address, networks: Iterable[_Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
