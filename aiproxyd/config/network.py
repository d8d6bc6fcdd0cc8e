"""The sections about the network: the TLS listener, and where and how the proxy connects to."""

import base64
import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from aiproxyd.config.section import Section, restart
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.host_list import HostList

_MAX_PORT = 65535


def _port_as_text(value: object) -> object:
    """Return a number as the text it is written as: who writes a port alone should be told about the address, not about quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def one_or_many(value: object) -> object:
    """Return one address as the list that several are."""
    return (value,) if isinstance(value, str) or _port_as_text(value) is not value else value


def _listen_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    is_port = port.isascii() and port.isdecimal()
    if is_port and int(port) > _MAX_PORT:
        message = f"{value!r}: {port} is no port, the highest is {_MAX_PORT}"
        raise ValueError(message)
    if is_port and not colon:
        message = f"{value!r} is a port without an address; write 127.0.0.1:{port}"
        raise ValueError(message)
    if not is_port:
        message = f"{value!r} is not ADDRESS:PORT"
        raise ValueError(message)
    ipaddress.ip_address(host.strip("[]") or "0.0.0.0")  # noqa: S104  (an empty host means every address, as usual)
    return value


ListenAddress = Annotated[str, BeforeValidator(_port_as_text), AfterValidator(_listen_address)]

_PROXY_PORTS = {"http": 80, "https": 443}


class ProxyUrl(msgspec.Struct, frozen=True):
    """What the URL of a proxy says."""

    authority: Authority
    is_tls: bool
    authorization: str
    """Value of `Proxy-Authorization`; empty when the URL has no credentials."""


def parse_proxy_url(text: str) -> ProxyUrl:
    """Return what the URL of a proxy says.

    Credentials are `user:password`, `user`, `user:` or `:password`, percent-encoded.

    Raises:
        ValueError: It is no such URL. The message does not repeat it: it may hold a password.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in _PROXY_PORTS:
        raise ValueError("does not begin with http:// or https://")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("has more than a scheme, credentials, a host and a port")
    credentials, at, place = parts.netloc.rpartition("@")
    try:
        authority = parse_authority(place, default_port=_PROXY_PORTS[parts.scheme])
    except ValueError:
        raise ValueError("has no usable host or port") from None
    authorization = ""
    if at:
        user, _, password = credentials.partition(":")
        if not user and not password:
            raise ValueError("has credentials with neither a user nor a password")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        authorization = "Basic " + base64.b64encode(pair).decode("ascii")
    return ProxyUrl(authority, parts.scheme == "https", authorization)


class SecretOfFile(SecretStr):
    """A secret that a file holds, which is watched for it."""

    def __init__(self, secret: str, file: Path) -> None:
        super().__init__(secret)
        self.file = file


def _from_elsewhere(value: object, validate: ValidatorFunctionWrapHandler) -> SecretStr:
    """Return what `{env: NAME}` or `{file: PATH}` leads to, and anything else as it is."""
    secret: SecretStr
    match value:
        case {"env": str(name), **others} if not others:
            if not os.environ.get(name):
                raise ValueError(f"the environment has no {name!r}")
            secret = validate(os.environ[name])
        case {"file": str(name), **others} if not others:
            file = Path(name).expanduser()
            try:
                text = file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
                raise ValueError(f"{name} cannot be read: {reason}") from None
            secret = SecretOfFile(validate(text).get_secret_value(), file.absolute())
        case _:
            secret = validate(value)
    return secret


def _proxy_url(value: SecretStr) -> SecretStr:
    parse_proxy_url(value.get_secret_value())
    return value


UpstreamProxyUrl = Annotated[
    SecretStr,
    AfterValidator(_proxy_url),
    WrapValidator(_from_elsewhere),
    # Workers get the configuration as JSON, over a socket pair that nobody else has.
    PlainSerializer(SecretStr.get_secret_value, when_used="json"),
]


class ListenTlsConfig(Section):
    """Listeners that speak TLS themselves, for proxy URLs that begin with `https://`."""

    listen: tuple[ListenAddress, ...] = restart(())
    """Addresses and ports, besides those of the top level's `listen`."""
    cert_file: Path | None = None
    """PEM of the certificate, followed by its chain. Read again at a reload."""
    key_file: Path | None = None
    """PEM of its unencrypted private key. Read again at a reload."""

    @field_validator("listen", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return one_or_many(value)

    @model_validator(mode="after")
    def _whole(self) -> "ListenTlsConfig":
        if (self.cert_file is None) != (self.key_file is None):
            message = "cert_file and key_file go together"
            raise ValueError(message)
        if self.listen and self.cert_file is None:
            message = "listen needs cert_file and key_file"
            raise ValueError(message)
        if self.cert_file is not None and not self.listen:
            message = "cert_file needs listen, the addresses where TLS is spoken"
            raise ValueError(message)
        return self


class EgressConfig(Section):
    """Where the proxy connects to."""

    allowed_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443, 80)
    """Ports a CONNECT or a forward request may name. Ports of a provider's `base_url` are added."""
    allowed_private_cidrs: tuple[str, ...] = ()
    """Networks exempt from the rule that private and reserved addresses are refused."""
    connect_timeout_seconds: float = Field(15.0, gt=0)
    """To resolve a name and connect to one of its addresses, through `upstream_proxy` or not."""
    tls_timeout_seconds: float = Field(15.0, gt=0)
    """For the handshake with a provider."""
    tunnel_idle_timeout_seconds: float = Field(3600.0, gt=0)
    """A tunnel without a byte in either direction for so long is closed."""
    upstream_proxy: UpstreamProxyUrl | None = None
    """`http://` or `https://[user:password@]host:port` of the proxy that everything goes through, also as `{env: NAME}` or
    `{file: PATH}`."""
    upstream_proxy_ca_file: Path | None = None
    """PEM of further roots for an `https://` upstream proxy, and for nothing else."""
    upstream_proxy_except: tuple[str, ...] = ()
    """Destinations that are reached directly, as in `NO_PROXY`: `example.com` (and all below it), `.example.com`, `*.example.com`
    (only what is below), addresses, networks, each with or without `:port`; those of `hosts` are as well."""
    upstream_proxy_decrypted: bool = True
    """Whether decrypted traffic goes through it too, and not only tunnels and plain requests."""
    upstream_proxy_resolves: bool = False
    """Whether names are left to it. They are not resolved here then, and so not checked for private addresses: that is up to it."""
    trust: Literal["certifi", "system"] = restart("certifi")
    """Which roots a provider's certificate must lead to."""
    trusted_ca_file: Path | None = restart(None)
    """PEM of further roots."""
    hosts: dict[str, str] = Field(default_factory=dict)
    """Fixed `host: address[:port]` answers instead of the resolver's, as in `/etc/hosts`. The address is exempt from the
    private-address rule; the name in TLS stays. For split-horizon networks and tests."""

    @field_validator("allowed_private_cidrs")
    @classmethod
    def _cidrs(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in cidrs:
            ipaddress.ip_network(cidr)
        return cidrs

    @field_validator("upstream_proxy_except")
    @classmethod
    def _exceptions(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        HostList(entries)
        return entries

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, hosts: dict[str, str]) -> dict[str, str]:
        for host, address in hosts.items():
            parse_authority(host, default_port=443)
            if not parse_authority(address, default_port=443).is_address:
                message = f"{address!r} is not an IP address with an optional port"
                raise ValueError(message)
        return {host.lower(): address for host, address in hosts.items()}
