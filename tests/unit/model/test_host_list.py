"""Which destinations a list of hosts means."""

import pytest

from aiproxyd.model.authority import parse_authority
from aiproxyd.model.host_list import HostList


@pytest.mark.parametrize(
    ("entry", "authority", "meant"),
    [
        ("example.com", "example.com:443", True),
        ("example.com", "a.b.example.com:443", True),
        ("example.com", "notexample.com:443", False),
        ("Example.COM.", "example.com:443", True),
        (".example.com", "example.com:443", False),
        (".example.com", "a.example.com:443", True),
        ("*.example.com", "example.com:443", False),
        ("*.example.com", "a.example.com:8443", True),
        ("example.com:8443", "example.com:443", False),
        ("example.com:8443", "a.example.com:8443", True),
        (".example.com:80", "a.example.com:443", False),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "10.1.2.30:443", False),
        ("10.1.2.3:80", "10.1.2.3:443", False),
        ("10.1.2.3:80", "10.1.2.3:80", True),
        ("10.0.0.0/8", "10.1.2.3:443", True),
        ("10.0.0.0/8", "11.1.2.3:443", False),
        ("10.0.0.0/8", "name.example.com:443", False),
        ("10.0.0.0/8", "[fd00::1]:443", False),
        ("10.1.2.3/8", "10.9.9.9:1", True),
        ("fd00::/8", "[fd00::1]:443", True),
        ("::1", "[::1]:443", True),
        ("[::1]:443", "[::1]:443", True),
        ("[::1]:80", "[::1]:443", False),
        ("*", "anything.example.com:1", True),
        (" example.com ", "example.com:443", True),
    ],
)
def test_an_entry_means_what_it_means_in_no_proxy(entry: str, authority: str, meant: bool) -> None:
    assert (parse_authority(authority) in HostList([entry])) is meant


def test_one_of_many_entries_is_enough() -> None:
    hosts = HostList(["a.example.com", "b.example.com:80", "10.0.0.0/8"])
    assert parse_authority("b.example.com:80") in hosts
    assert parse_authority("c.example.com:80") not in hosts
    assert parse_authority("c.example.com:80") not in HostList()


@pytest.mark.parametrize(
    "entry", ["", ".", "*.", "a b", "http://example.com", "10.0.0.0/99", "example.com:0", "example.com:x", "a*b.com"]
)
def test_what_is_no_entry_is_refused_with_its_text(entry: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        HostList([entry])
