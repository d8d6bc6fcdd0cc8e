"""Who is charged for a client that sends no credentials, by its address alone. Pure.

An address proves little: whoever has a machine in the network is that user. It is for machines that cannot send credentials.
"""

import ipaddress
from collections.abc import Iterable

from aiproxyd.config.identity import NetworkAuthConfig
from aiproxyd.model.principal import Principal, id_of_name


class NetworkTable:
    """Networks and their users."""

    def __init__(self, networks: Iterable[NetworkAuthConfig] = ()) -> None:
        entries = [
            (
                ipaddress.ip_network(entry.network),
                Principal(id_of_name(entry.user), entry.user, entry.groups, evidence="network"),
            )
            for entry in networks
        ]
        # The longest prefix first, so that the first hit is the one that counts.
        self._entries = sorted(entries, key=lambda entry: entry[0].prefixlen, reverse=True)

    def principal_of(self, address: str) -> Principal | None:
        """Return the user of the network that `address` is in, or None. An IPv4 address inside an IPv6 one counts as what it is."""
        if not self._entries:
            return None
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        for network, principal in self._entries:
            if parsed.version == network.version and parsed in network:
                return principal
        return None
