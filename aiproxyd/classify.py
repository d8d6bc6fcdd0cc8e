"""Which provider claims an authority, and which of its endpoints a request names. Pure; built anew at each reload."""

import enum
import re
from collections.abc import Collection, Iterable

import msgspec

from aiproxyd.model.authority import Authority
from aiproxyd.model.endpoint import PASSTHROUGH, Endpoint

_HTTPS_PORT = 443


class ProviderStatus(enum.StrEnum):
    """Whether a provider entry is in use."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    ERROR = "error"
    PROXY_EXCLUDED = "proxy_excluded"
    """Another provider, earlier by name, claims the same host."""


class Provider(msgspec.Struct, frozen=True):
    """A configured provider, resolved: nothing left to default."""

    name: str
    type: str
    authorities: tuple[tuple[str, int], ...] = ()
    """Host patterns (`*` for any run of characters but a dot) with their ports."""
    path_prefix: str = ""
    """Path of `base_url` without a trailing slash; the endpoints' routes stand below it."""
    endpoints: tuple[Endpoint, ...] = ()
    status: ProviderStatus = ProviderStatus.ENABLED
    reason: str = ""
    """Why the status is not `enabled`; a sentence."""
    when_disabled: str = "refuse"

    def hosts(self, usual_ports: Collection[int]) -> tuple[str, ...]:
        """Return the host patterns for people: each once, and with a port only where it is another than the usual ones.

        Args:
            usual_ports: Those on which a host without a port is claimed.
        """
        ports: dict[str, list[int]] = {}
        for host, port in self.authorities:
            ports.setdefault(host, []).append(port)
        names: list[str] = []
        for host, claimed in ports.items():
            implied = usual_ports if set(usual_ports) <= set(claimed) else (_HTTPS_PORT,)
            if any(port in implied for port in claimed):
                names.append(host)
            names += [str(Authority(host, port)) for port in claimed if port not in implied]
        return tuple(names)


class ProviderTable:
    """All configured providers, found by authority."""

    def __init__(self, providers: Iterable[Provider] = ()) -> None:
        self.providers = tuple(providers)
        self._exact: dict[Authority, Provider] = {}
        self._patterns: list[tuple[re.Pattern[str], int, Provider]] = []
        # By name, so that the first claimant by name order wins whatever the order of the file.
        for provider in sorted(self.providers, key=lambda provider: provider.name):
            if provider.status is ProviderStatus.PROXY_EXCLUDED:
                continue
            for host, port in provider.authorities:
                if "*" in host:
                    pattern = re.compile(re.escape(host).replace(r"\*", r"[^.]+") + r"\Z")
                    self._patterns.append((pattern, port, provider))
                else:
                    self._exact.setdefault(Authority(host, port), provider)

    def claimant(self, authority: Authority) -> Provider | None:
        """Return the provider that claims `authority`, whatever its status, or None."""
        provider = self._exact.get(authority)
        if provider is not None:
            return provider
        for pattern, port, candidate in self._patterns:
            if port == authority.port and pattern.match(authority.host):
                return candidate
        return None

    def decrypts(self, authority: Authority) -> bool:
        """Return whether `authority` is that of a provider in use."""
        provider = self.claimant(authority)
        return provider is not None and provider.status is ProviderStatus.ENABLED

    def serves(self, authority: Authority, name: str) -> bool:
        """Return whether `authority` is that of the provider `name`, and that in use."""
        provider = self.claimant(authority)
        return provider is not None and provider.name == name and provider.status is ProviderStatus.ENABLED

    def by_name(self, name: str) -> Provider | None:
        """Return the provider named `name`, or None."""
        return next((provider for provider in self.providers if provider.name == name), None)


def find_endpoint(provider: Provider, method: str, path: str) -> Endpoint:
    """Return the endpoint of `provider` that a request names; PASSTHROUGH when no pattern fits.

    Args:
        provider: Whose endpoints to look through, in their order.
        method: As on the wire.
        path: Of the request target, without its query.
    """
    if _ODD_SPELLING.search(path):
        path = _plain_spelling(path)
    prefix = provider.path_prefix
    if prefix:
        if not path.startswith(prefix + "/"):
            return PASSTHROUGH
        path = path[len(prefix) :]
    path = path.rstrip("/") or "/"
    for endpoint in provider.endpoints:
        if (method in endpoint.methods or "*" in endpoint.methods) and _route_pattern(endpoint.route).match(path):
            return endpoint
    return PASSTHROUGH


# Servers read these as the plain path, so a request must not escape its record by them.
_ODD_SPELLING = re.compile(r"//|/\.|%")
_ENCODED_UNRESERVED = re.compile(r"%(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
_DOT_SEGMENTS = re.compile(r"/\.(?=/|\Z)")
_PARENT_SEGMENT = re.compile(r"/[^/]+/\.\.(?=/|\Z)")


def _plain_spelling(path: str) -> str:
    """Return `path` as RFC 3986 §6.2.2 normalises it, for matching alone; the request itself is not touched.

    An encoded slash stays one: names of models may hold it.
    """
    path = _ENCODED_UNRESERVED.sub(lambda found: chr(int(found[0][1:], 16)), path)
    path = re.sub("/{2,}", "/", path)
    path = _DOT_SEGMENTS.sub("", path)
    while (shorter := _PARENT_SEGMENT.sub("", path, count=1)) != path:
        path = shorter
    return path


_route_patterns: dict[str, re.Pattern[str]] = {}


def _route_pattern(route: str) -> re.Pattern[str]:
    pattern = _route_patterns.get(route)
    if pattern is None:
        text = re.escape(route).replace(r"\{\}", "[^/]+")
        if text.endswith(r"\*"):
            text = text[:-2] + ".*"
        # Bounded by the routes of the provider facts, which are data of the package.
        pattern = _route_patterns[route] = re.compile(text + r"\Z")
    return pattern
