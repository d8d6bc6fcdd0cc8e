"""Authorities, as a CONNECT names them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.authority import Authority, is_loopback, parse_authority


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api.anthropic.com:443", ("api.anthropic.com", 443)),
        ("API.Anthropic.COM:443", ("api.anthropic.com", 443)),
        ("api.anthropic.com.:443", ("api.anthropic.com", 443)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8443", ("::1", 8443)),
        ("[2001:DB8::1]:443", ("2001:db8::1", 443)),
        ("my_host:1", ("my_host", 1)),
        ("xn--bcher-kva.example:65535", ("xn--bcher-kva.example", 65535)),
    ],
)
def test_an_authority_is_read(text, expected):
    assert parse_authority(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:443x",
        "host:٣",
        "host:-1",
        "ho st:443",
        "host/path:443",
        "user@host:443",
        "::1:443",
        "[::1]",
        "[::1",
        "[::1]443",
        "[127.0.0.1]:443",
        "[fe80::1%eth0]x:443",
        "a:b:443",
        "a..b:443",
        ".a:443",
        "-host:443",
        "host-:443",
        "a" * 254 + ":443",
        "1.2.3:443",  # a resolver would read it as 1.2.0.3
        "1.2.3.256:443",
        "0x7f.1:443",  # the last label is a number: an address or nothing
        "2130706433:443",  # 127.0.0.1 to a resolver
        "host:99999999999999999999",
    ],
)
def test_what_is_no_authority_is_refused_with_the_text(text):
    with pytest.raises(ValueError, match="is not host:port"):
        parse_authority(text)


def test_a_default_port_fills_in():
    assert parse_authority("host", default_port=443) == ("host", 443)
    assert parse_authority("[::1]", default_port=443) == ("::1", 443)


@given(st.text(max_size=60))
def test_any_text_is_an_authority_or_refused(text):
    try:
        authority = parse_authority(text)
    except ValueError:
        return
    assert parse_authority(str(authority)) == authority


def test_addresses_are_told_from_names():
    assert Authority("::1", 1).is_address
    assert Authority("10.0.0.1", 1).is_address
    assert not Authority("host", 1).is_address
    assert not Authority("10.0.0.1.example", 1).is_address
    assert not Authority("host7", 1).is_address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_a_host_is_a_loopback_address(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "fe80::1%eth0", "localhost", ""])
def test_a_host_is_no_loopback_address(host):
    assert not is_loopback(host)
