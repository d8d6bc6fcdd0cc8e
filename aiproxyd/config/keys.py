"""Reads the keys of the provider entries from where the configuration says, and resolves what the data plane does with them.

What cannot be read breaks its own provider entry and no other; its sentence names the setting and the place, never a value.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from aiproxyd import sigv4
from aiproxyd.breaker import BreakerSettings
from aiproxyd.config.credentials import KeyConfig, SecretConfig
from aiproxyd.config.providers import facts_of, parse_target
from aiproxyd.config.schema import Config, ProviderConfig
from aiproxyd.model.authority import parse_authority
from aiproxyd.model.credential import ProviderKeys, UpstreamKey
from aiproxyd.upstream import ActorHeaders, Target, UpstreamRules

# Keys and tokens are below 4 KiB; more is a wrong file.
MAX_KEY_BYTES = 16 << 10

# A header's value; anything else in a key is a mistake, and a line break in one would forge a header.
_USABLE = re.compile(r"[!-~]+\Z")


class _Unusable(Exception):
    """A key cannot be had; the sentence says why."""


def read_keys(config: Config, environ: Mapping[str, str]) -> dict[str, ProviderKeys]:
    """Return the keys of every provider entry that has some, by its name. Files are read at each call.

    Args:
        config: Names where they are.
        environ: The environment variables.
    """
    return {entry.name: _keys_of(entry, environ) for entry in config.providers if entry.keys}


def problems_of(keys: Mapping[str, ProviderKeys]) -> dict[str, str]:
    """Return why keys of entries cannot be used, by the entry's name."""
    return {name: each.problem for name, each in keys.items() if each.problem}


def upstream_rules(config: Config, keys: Mapping[str, ProviderKeys]) -> dict[str, UpstreamRules]:
    """Return what the data plane does with requests to each provider entry, by the entry's name."""
    return {entry.name: _rules_of(entry, keys.get(entry.name, ProviderKeys())) for entry in config.providers}


def _rules_of(entry: ProviderConfig, keys: ProviderKeys) -> UpstreamRules:
    breaker, actor, timeouts = entry.breaker, entry.actor_headers, entry.timeouts
    target = parse_target(entry.target) if entry.target is not None else None
    return UpstreamRules(
        provider=entry.name,
        type=entry.type.value,
        keys=keys.keys,
        byok=entry.byok,
        breaker=BreakerSettings(
            failure_threshold=breaker.failure_threshold,
            interval_seconds=breaker.interval_seconds,
            open_seconds=breaker.open_seconds,
            half_open_max_requests=breaker.half_open_max_requests,
        )
        if breaker.enabled
        else None,
        connect_timeout_seconds=timeouts.connect_seconds,
        first_byte_timeout_seconds=timeouts.first_byte_seconds,
        idle_timeout_seconds=timeouts.idle_seconds,
        retry_body_max_bytes=entry.retry_body_max_bytes,
        # A target that is none breaks its entry, which is then not in use.
        target=target if isinstance(target, Target) else None,
        base=_base_of(entry),
        actor_headers=ActorHeaders(actor.id, actor.username, actor.groups) if actor.enabled else ActorHeaders(),
    )


def _base_of(entry: ProviderConfig) -> Target | None:
    """Return what a client of the reverse listener means by an entry: its `base_url`, or the first host of its own or its type."""
    if entry.base_url is not None:
        url = parse_target(entry.base_url)
        return url if isinstance(url, Target) else None
    facts = facts_of(entry.type.value)
    for host in facts.hosts if entry.hosts is None else entry.hosts:
        if "*" not in host:
            try:
                return Target("https", parse_authority(host, default_port=443), facts.base_path)
            except ValueError:
                return None  # the entry is broken, and not in use
    return None


def _keys_of(entry: ProviderConfig, environ: Mapping[str, str]) -> ProviderKeys:
    keys: list[UpstreamKey] = []
    try:
        for position, key in enumerate(entry.keys):
            read = _key_of(key, f"keys[{position}]", environ)
            if read in keys:
                raise _Unusable(f"keys[{position}] is the same as keys[{keys.index(read)}]")
            keys.append(read)
    except _Unusable as exc:
        return ProviderKeys(problem=str(exc))
    return ProviderKeys(keys=tuple(keys))


def _key_of(key: KeyConfig, where: str, environ: Mapping[str, str]) -> UpstreamKey:
    if key.access_key_id is None or key.secret_access_key is None:
        return UpstreamKey(_read(key, where, environ))
    if not sigv4.is_available():
        raise _Unusable(f"{where}: {sigv4.MISSING}")
    token = key.session_token
    return UpstreamKey(
        _read(key.secret_access_key, f"{where}.secret_access_key", environ),
        access_key_id=_read(key.access_key_id, f"{where}.access_key_id", environ),
        session_token=_read(token, f"{where}.session_token", environ) if token is not None else "",
        region=key.region,
    )


def _read(source: KeyConfig | SecretConfig, where: str, environ: Mapping[str, str]) -> str:
    if source.env is not None:
        where = f"{where}: the environment variable {source.env}"
        if source.env not in environ:
            raise _Unusable(f"{where} is not set")
        text = environ[source.env]
    elif source.file is not None:
        where = f"{where}: the file {source.file}"
        text = _read_file(source.file, where)
    else:
        text = _open(source.value)
    text = text.strip()
    if not text:
        raise _Unusable(f"{where} is empty")
    if len(text) > MAX_KEY_BYTES:
        raise _Unusable(f"{where} holds more than {MAX_KEY_BYTES} bytes, so it is no key")
    if not _USABLE.match(text):
        raise _Unusable(f"{where} holds characters that no key has, such as a space or a line break")
    return text


def _read_file(file: Path, where: str) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_KEY_BYTES + 1).decode("utf-8-sig")
    except OSError as exc:
        raise _Unusable(f"{where} cannot be read: {exc.strerror or type(exc).__name__}") from None
    except UnicodeDecodeError:
        # Its bytes would be part of the original message.
        raise _Unusable(f"{where} is not text") from None


def _open(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""
