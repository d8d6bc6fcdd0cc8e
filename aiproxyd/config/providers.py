"""From provider entries to the table that CONNECTs and requests are looked up in: nothing is left to default.

A broken entry does not stop the others: it keeps its place with the status `error` and a sentence, and what it is known to claim
is not decrypted.

Facts: a host belongs to one provider. Of two enabled entries that claim it, the first by name has it, and the other is
`proxy_excluded` as a whole, as in Coder's gateway.
"""

import functools
import importlib.resources
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from aiproxyd.classify import Provider, ProviderStatus, ProviderTable
from aiproxyd.config.schema import Config, ProviderConfig
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.providers.facts import ProviderFacts, parse_facts
from aiproxyd.upstream import Target

_DEFAULT_PORTS = {"https": 443, "http": 80}
_PATH = re.compile(r"[!-~]*\Z")

HostAndPort = tuple[str, int]


class BaseUrl(msgspec.Struct, frozen=True):
    """A provider's `base_url`, parsed."""

    authority: Authority
    path: str
    """Without a trailing slash; empty for none."""


def provider_table(config: Config, problems: Mapping[str, str] | None = None) -> ProviderTable:
    """Return every configured provider, resolved, in the order of the configuration.

    Args:
        config: Its entries.
        problems: Why the keys of entries cannot be used, by the entry's name: `keys.problems_of`.
    """
    problems = problems or {}
    resolved = [_resolve(entry, config.egress.allowed_ports, problems.get(entry.name, "")) for entry in config.providers]
    claims: dict[HostAndPort, str] = {}
    excluded: dict[str, str] = {}
    for provider in sorted(resolved, key=lambda provider: provider.name):
        if provider.status is not ProviderStatus.ENABLED:
            continue
        taken = next((claim for claim in provider.authorities if claim in claims), None)
        if taken is not None:
            excluded[provider.name] = f"{Authority(*taken)} already belongs to the provider {claims[taken]!r}"
            continue
        claims.update(dict.fromkeys(provider.authorities, provider.name))
    return ProviderTable(_settle(provider, claims, excluded) for provider in resolved)


def base_url_authorities(config: Config) -> frozenset[Authority]:
    """Return the destinations an operator named as `base_url` or `target`; they are exempt from the private-address rule."""
    parsed: list[BaseUrl | Target | str] = []
    for entry in config.providers:
        if entry.base_url is not None:
            parsed.append(parse_base_url(entry.base_url))
        if entry.target is not None:
            parsed.append(parse_target(entry.target))
    return frozenset(url.authority for url in parsed if not isinstance(url, str))


def parse_base_url(text: str) -> BaseUrl | str:
    """Return `text` parsed, or the sentence that says what is wrong with it. Credentials in it are never repeated."""
    parsed = _parse_url(text, "base_url")
    return parsed if isinstance(parsed, str) else BaseUrl(parsed.authority, parsed.path)


def parse_target(text: str) -> Target | str:
    """As `parse_base_url`, for a `target`."""
    return _parse_url(text, "target")


def _parse_url(text: str, setting: str) -> Target | str:
    # Nothing behind the host is shown where credentials may stand.
    shown = f"{setting} {re.sub(r'//[^/@]*@', '//***@', re.sub(r'[?#].*', '…', text))!r}"
    try:
        parts = urlsplit(text)
    except ValueError:
        return f"{shown} is no URL"
    default_port = _DEFAULT_PORTS.get(parts.scheme)
    if default_port is None:
        return f"{shown} does not begin with https:// or http://"
    if "@" in parts.netloc:
        return f"{shown} holds credentials; give them as keys, or let clients bring their own"
    if not parts.netloc:
        return f"{shown} has no host"
    if parts.query or parts.fragment or "?" in text or "#" in text:
        return f"{shown} has a query or a fragment"
    try:
        authority = parse_authority(parts.netloc, default_port=default_port)
    except ValueError:
        return f"{shown} has no usable host or port"
    if not _PATH.match(parts.path):
        return f"{shown} has a path with characters that must be percent-encoded"
    return Target(parts.scheme, authority, parts.path.rstrip("/"))


@functools.cache
def facts_of(provider_type: str) -> ProviderFacts:
    """Return what the package knows of a provider type."""
    file = importlib.resources.files("aiproxyd.providers").joinpath("data", f"{provider_type}.yaml")
    return parse_facts(file.read_text(encoding="utf-8"))


def _resolve(entry: ProviderConfig, allowed_ports: Iterable[int], problem: str) -> Provider:
    facts = facts_of(entry.type.value)
    url = parse_base_url(entry.base_url) if entry.base_url is not None else None
    # Without a port, a host is claimed on each port a CONNECT may name, as in Coder's proxy.
    ports = tuple(dict.fromkeys((*allowed_ports, *((url.authority.port,) if isinstance(url, BaseUrl) else ()))))
    reason = url if isinstance(url, str) else ""
    authorities: list[HostAndPort] = []
    if entry.hosts is not None or url is None:
        for host in facts.hosts if entry.hosts is None else entry.hosts:
            claimed = _claimed(host, ports)
            if claimed:
                authorities += claimed
            else:
                reason = reason or f"hosts: {host!r} is no host name, pattern or address, with or without a port"
    elif isinstance(url, BaseUrl):
        authorities.append((url.authority.host, url.authority.port))
    if not authorities and not reason:
        reason = "it has no host: give it a base_url or hosts"
    target = parse_target(entry.target) if entry.target is not None else None
    reason = reason or (target if isinstance(target, str) else "") or problem
    status = ProviderStatus.ENABLED
    if not entry.enabled:
        status, reason = ProviderStatus.DISABLED, reason or "enabled is false"
    elif reason:
        status = ProviderStatus.ERROR
    return Provider(
        name=entry.name,
        type=entry.type.value,
        authorities=tuple(dict.fromkeys(authorities)),
        path_prefix=_path_prefix(url.path, facts.endpoints) if isinstance(url, BaseUrl) else "",
        endpoints=facts.endpoints,
        status=status,
        reason=reason,
        when_disabled=entry.when_disabled,
    )


def _settle(provider: Provider, claims: Mapping[HostAndPort, str], excluded: Mapping[str, str]) -> Provider:
    if provider.name in excluded:
        return msgspec.structs.replace(provider, status=ProviderStatus.PROXY_EXCLUDED, reason=excluded[provider.name])
    if provider.status is ProviderStatus.ENABLED:
        return provider
    # A disabled or broken entry refuses only what no enabled one serves.
    return msgspec.structs.replace(provider, authorities=tuple(claim for claim in provider.authorities if claim not in claims))


def _claimed(host: str, ports: Iterable[int]) -> list[HostAndPort]:
    """Return what a host pattern claims; empty when it is no pattern."""
    # A star stands for characters that a name may hold, so the pattern is as good as the name with a letter in its place.
    name, port = host.lower(), 0
    try:
        probe = parse_authority(name.replace("*", "x"), default_port=1)
        if not name.startswith("[") and ":" in name:
            name, _, _ = name.partition(":")
            port = probe.port
        elif name.startswith("["):
            port = probe.port if "]:" in name else 0
            name = probe.host
    except ValueError:
        return []
    name = name.removesuffix(".")
    if "*" not in name:
        name = probe.host
    return [(name, port)] if port else [(name, each) for each in ports]


def _path_prefix(path: str, endpoints: Iterable[Endpoint]) -> str:
    """Return what stands before the endpoints' routes when a `base_url` has `path`.

    People write the base URL of an SDK, `https://openrouter.ai/api/v1`, and routes begin with `/v1`, too. The longest end of the
    path that is also the beginning of a route is the route's.
    """
    steps = path.split("/")[1:]
    for length in range(len(steps), 0, -1):
        end = "".join(f"/{step}" for step in steps[-length:])
        # Of what is recorded: other routes have beginnings of their own, such as Anthropic's /api/event_logging.
        if any(endpoint.api and endpoint.route.startswith(end + "/") for endpoint in endpoints):
            return path[: -len(end)]
    return path
