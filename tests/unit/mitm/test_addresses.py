"""The whole list of special networks: both ends of each are refused, and what lies beside it is judged on its own."""

import ipaddress

import pytest

from aiproxyd.mitm import addresses
from aiproxyd.mitm.addresses import AddressRule

# Not globally reachable by the IANA registries of special-purpose addresses, and multicast.
SPECIAL = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


@pytest.mark.parametrize("cidr", SPECIAL)
def test_no_address_of_a_special_network_may_be_dialled(cidr: str) -> None:
    network = ipaddress.ip_network(cidr)
    for address in (network[0], network[-1]):
        assert not AddressRule().allows(str(address))
        if address.version == 4:
            for form in (f"::ffff:{address}", f"::ffff:0:{address}", f"::{address}", f"64:ff9b::{address}"):
                assert not AddressRule().allows(form), form


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "192.0.1.255", "192.0.3.0", "192.88.98.255", "198.51.99.255", "203.0.112.255", "203.0.114.0"),
        *("2001:200::1", "2606:4700::1111", "2400::1", "2a00:1450::1", "2620:4f:8000::1", "3ffe:ffff::1", "5eff::1", "101::1"),
        "::ffff:8.8.8.8",
    ],
)
def test_their_neighbours_may(address: str) -> None:
    assert AddressRule().allows(address)


def test_a_translated_address_needs_both_its_network_and_what_it_carries() -> None:
    assert AddressRule(["::ffff:0:0:0/96"]).allows("::ffff:0:8.8.8.8")
    assert not AddressRule(["::ffff:0:0:0/96"]).allows("::ffff:0:10.1.2.3")
    assert AddressRule(["::ffff:0:0:0/96", "10.0.0.0/8"]).allows("::ffff:0:10.1.2.3")


def test_no_more_judgements_are_kept_than_there_is_room_for(monkeypatch) -> None:
    monkeypatch.setattr(addresses, "_MAX_JUDGED", 2)
    rule = AddressRule(["10.0.0.0/8"])
    for _ in range(2):
        for last in range(5):
            assert rule.allows(f"10.0.0.{last}")
            assert not rule.allows(f"192.168.0.{last}")
            assert rule._remembered.cache_info().currsize <= 2
