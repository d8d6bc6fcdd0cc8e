"""Host and port of a CONNECT or of an absolute request target (RFC 9110 §7.2)."""

import ipaddress
import re
from typing import NamedTuple

# RFC 1035 limits a name to 253 visible characters; underscores occur in practice.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\Z")


class Authority(NamedTuple):
    """A lower-case host without brackets or trailing dot, and a port in 1..65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address literal."""
        if ":" not in self.host and not self.host[-1:].isdigit():
            return False  # a name, which `ipaddress` would say with two exceptions
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address, also of IPv4 as an IPv6 socket shows it. A name is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def parse_authority(text: str, *, default_port: int | None = None) -> Authority:
    """Return the authority that `text` names.

    Args:
        text: `host:port`, `[v6]:port`, or without the port when `default_port` is given.
        default_port: The port when `text` names none.

    Raises:
        ValueError: `text` is no authority; the message quotes it, without what stands before an `@`.
    """
    # Who writes credentials before the host does not want them repeated.
    _, at, behind = text.rpartition("@")
    refusal = f"{('***@' + behind if at else text)[:80]!r} is not host:port"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(refusal)
        port_text = rest[1:]
        host = _address(host, 6, refusal)
    else:
        host, _, port_text = text.partition(":")
        host = host.lower().removesuffix(".")
        if not _HOST.match(host) or ":" in port_text:
            raise ValueError(refusal)
        if host.rpartition(".")[2].isdigit():
            # A last label of digits is an address or nothing: `1.2.3` must not reach a resolver that reads it as 1.2.0.3.
            host = _address(host, 4, refusal)
    if not port_text and default_port is not None:
        return Authority(host, default_port)
    if not (port_text.isascii() and port_text.isdigit()) or not 1 <= int(port_text[:6]) <= 65535:
        raise ValueError(refusal)
    return Authority(host, int(port_text))


def _address(text: str, version: int, refusal: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(refusal) from None
    if address.version != version:
        raise ValueError(refusal)
    return str(address)
