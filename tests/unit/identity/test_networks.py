"""Whose a machine is, by its address alone."""

import pytest

from aiproxyd.config.identity import NetworkAuthConfig
from aiproxyd.identity.networks import NetworkTable
from aiproxyd.model.principal import Principal, id_of_name


def table(**users: str) -> NetworkTable:
    return NetworkTable(NetworkAuthConfig(network=network, user=user, groups=("ci",)) for user, network in users.items())


NETWORKS = {"wide": "10.0.0.0/8", "narrow": "10.1.0.0/16", "one": "10.1.2.3/32", "six": "fd00::/8", "all6": "::/0"}


@pytest.mark.parametrize(
    ("address", "user"),
    [
        ("10.200.0.1", "wide"),
        ("10.1.0.1", "narrow"),
        ("10.1.2.3", "one"),
        ("::ffff:10.1.2.3", "one"),
        ("fd12::1", "six"),
        ("2001:db8::1", "all6"),
        ("192.0.2.1", None),
        ("not an address", None),
        ("", None),
    ],
)
def test_the_longest_prefix_counts_and_an_ipv4_address_inside_an_ipv6_one_is_itself(address: str, user: str | None) -> None:
    principal = table(**NETWORKS).principal_of(address)
    assert principal == (None if user is None else Principal(id_of_name(user), user, ("ci",), evidence="network"))


def test_the_order_of_the_entries_does_not_count() -> None:
    turned = table(**dict(reversed(NETWORKS.items())))
    assert turned.principal_of("10.1.2.3") == table(**NETWORKS).principal_of("10.1.2.3")


def test_without_networks_nobody_is_known() -> None:
    assert NetworkTable().principal_of("127.0.0.1") is None
