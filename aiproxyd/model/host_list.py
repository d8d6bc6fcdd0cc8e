"""A list of hosts as people write it in `NO_PROXY`: names, suffixes, addresses, networks, each with or without a port. Pure; nothing is resolved.

Facts (Go's `http.ProxyFromEnvironment`, the most exact of the many readings): `example.com` means the host and all below it,
`.example.com` and `*.example.com` only what is below, `*` everything. A network fits address literals alone.
"""

import ipaddress
from collections.abc import Iterable

from aiproxyd.model.authority import Authority, parse_authority

_ANY_PORT = 0

type _Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HostList:
    """Which destinations are meant."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """
        Args:
            entries: As written.

        Raises:
            ValueError: One of them is none of these; the message quotes it.
        """
        self._everything = False
        self._networks: list[_Network] = []
        self._hosts: set[tuple[str, int]] = set()
        self._suffixes: list[tuple[str, int]] = []
        """With the dot before them."""
        for entry in entries:
            self._add(entry.strip().lower())

    def __contains__(self, authority: Authority) -> bool:
        if self._everything:
            return True
        host, port = authority
        if (host, _ANY_PORT) in self._hosts or (host, port) in self._hosts:
            return True
        if any(host.endswith(suffix) and of_port in (_ANY_PORT, port) for suffix, of_port in self._suffixes):
            return True
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in self._networks)

    def _add(self, entry: str) -> None:
        if entry == "*":
            self._everything = True
            return
        if "/" in entry:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                raise ValueError(f"{entry[:80]!r} is no network") from None
            return
        try:
            address = str(ipaddress.ip_address(entry))
        except ValueError:
            pass
        else:
            self._hosts.add((address, _ANY_PORT))
            return
        is_below_only = entry.startswith((".", "*."))
        try:
            host, port = parse_authority(entry.removeprefix("*").removeprefix("."), default_port=_ANY_PORT)
        except ValueError:
            raise ValueError(f"{entry[:80]!r} is no host, suffix, address or network, with or without a port") from None
        if not is_below_only:
            self._hosts.add((host, port))
        if not Authority(host, 1).is_address:
            self._suffixes.append(("." + host, port))
