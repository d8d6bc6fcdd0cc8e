"""`aiproxyd check`: whether `aiproxyd run` would start with this configuration.

What a start makes is tried and taken away again: rights alone do not tell what a file system takes. Nothing stays behind.
"""

import contextlib
import enum
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aiproxyd.commands.configuration import ConfigOption

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config

# Time for people to bring a new certificate to every client.
EXPIRY_NOTICE_DAYS = 30


class State(enum.StrEnum):
    """How one thing stands."""

    OK = "ok"
    NOTE = "note"
    """Works, but may not be what was meant."""
    FAILED = "failed"


Line = tuple[str, State, str]


def check(config: ConfigOption = None) -> int:
    """Check whether the daemon would start.

    Looks at the configuration, the CA, the providers, the store and the ports, and prints a report.

    The exit status is 0 when the daemon would start, 2 when the configuration is not usable, and 1 for the rest.

    For example:

      aiproxyd check

      aiproxyd check --config /etc/aiproxyd/config.yaml
    """
    from aiproxyd.config.loader import config_file, load

    settings = load(config, os.environ)
    file = config_file(config, os.environ)
    lines: list[Line] = [("configuration", State.OK, str(file) if file is not None else "no file; defaults")]
    for part in (_data_dir, _authority, _providers, _egress, _identities, _store, _log_file, _ports):
        lines += part(settings)
    width = max(len(subject) for subject, _, _ in lines)
    for subject, state, sentence in lines:
        typer.echo(f"{subject:<{width}}  {state.value:<6}  {sentence}")
    return int(any(state is State.FAILED for _, state, _ in lines))


def _data_dir(settings: "Config") -> Iterator[Line]:
    folder = settings.data_dir
    was_there = folder.exists()
    # The journal is written from the first request on.
    problem = _try_folder(folder / "journal") or _try_folder(folder)
    if problem:
        yield "data folder", State.FAILED, f"{folder} cannot be used: {problem}"
    else:
        yield "data folder", State.OK, f"{folder}{'' if was_there else ' (made at the first start)'}"


def _try_folder(folder: Path) -> str:
    """Make `folder` where it is missing and a file in it, remove what was made, and return what is wrong; empty for nothing."""
    made: list[Path] = []
    try:
        for part in (*reversed(folder.parents), folder):
            with contextlib.suppress(FileExistsError):
                part.mkdir(mode=0o700)
                made.append(part)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as exc:
        return exc.strerror or str(exc)
    finally:
        for part in reversed(made):
            # Not empty any more where a daemon starts just now; then it is in good hands.
            with contextlib.suppress(OSError):
                part.rmdir()


def _authority(settings: "Config") -> Iterator[Line]:
    import datetime as dt

    from aiproxyd.ca.authority import CertificateAuthority
    from aiproxyd.ca.files import CERTIFICATE_NAME, KEY_NAME
    from aiproxyd.exceptions import CertificateError

    own = settings.ca.cert_file is not None
    certificate_file = settings.ca.cert_file or settings.data_dir / "ca" / CERTIFICATE_NAME
    if not own and not certificate_file.exists():
        problem = _try_folder(certificate_file.parent)
        if problem:
            yield "CA", State.FAILED, f"{certificate_file} cannot be made: {problem}"
        else:
            yield "CA", State.OK, f"{certificate_file} (made at the first start)"
        return
    try:
        ca = CertificateAuthority.load(certificate_file, settings.ca.key_file or settings.data_dir / "ca" / KEY_NAME)
    except CertificateError as exc:
        yield "CA", State.FAILED, str(exc)
        return
    end = min(certificate.not_valid_after_utc for certificate in (ca.certificate, *ca.chain))
    soon = end - dt.datetime.now(dt.UTC) < dt.timedelta(days=EXPIRY_NOTICE_DAYS)
    yield (
        "CA",
        State.NOTE if soon else State.OK,
        f"{certificate_file}, valid until {end:%Y-%m-%d}{', which is soon' if soon else ''}",
    )


def _providers(settings: "Config") -> Iterator[Line]:
    from aiproxyd.classify import ProviderStatus
    from aiproxyd.config.keys import problems_of, read_keys
    from aiproxyd.config.providers import provider_table

    providers = provider_table(settings, problems_of(read_keys(settings, os.environ))).providers
    enabled = [provider.name for provider in providers if provider.status is ProviderStatus.ENABLED]
    yield "providers", State.OK if enabled else State.NOTE, ", ".join(enabled) or "none is enabled, so nothing is decrypted"
    for provider in providers:
        if provider.status in {ProviderStatus.ERROR, ProviderStatus.PROXY_EXCLUDED}:
            yield "providers", State.NOTE, f"{provider.name} is not used: {provider.reason}"


def _egress(settings: "Config") -> Iterator[Line]:
    import ssl

    from aiproxyd.exceptions import CertificateError
    from aiproxyd.mitm.network_files import check_files

    if settings.listen_tls.cert_file is not None or settings.egress.upstream_proxy_ca_file is not None:
        try:
            check_files(settings)
        except CertificateError as exc:
            yield "network files", State.FAILED, str(exc)
        else:
            yield "network files", State.OK, "certificates of listen_tls and of egress.upstream_proxy can be used"
    file = settings.egress.trusted_ca_file
    if file is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ssl.SSLError) as exc:
        yield "egress roots", State.FAILED, f"{file} cannot be used: {exc.strerror or exc}"
    else:
        yield "egress roots", State.OK, str(file)


def _identities(settings: "Config") -> Iterator[Line]:
    import asyncio

    from aiproxyd.exceptions import ConfigError
    from aiproxyd.identity.sources import RemoteSources

    async def build() -> None:
        await RemoteSources(settings.auth).close()

    names = [name for name, source in (("coder", settings.auth.coder.url), ("jwt", settings.auth.jwt.issuer)) if source]
    if names:
        try:
            asyncio.run(build())
        except ConfigError as exc:
            yield "identities", State.FAILED, str(exc)
        else:
            yield "identities", State.OK, f"{', '.join(names)} (asked when a token of theirs comes)"


def _store(settings: "Config") -> Iterator[Line]:
    import asyncio

    from aiproxyd.exceptions import StorageError
    from aiproxyd.storage.store import Store

    try:
        file = Store.file_of(settings.store_url)
        if file is not None and not file.exists():
            problem = _try_folder(file.parent)
            made = f"{file} cannot be made: {problem}" if problem else f"{file} (made at the first start)"
            yield "store", State.FAILED if problem else State.OK, made
            return
        if file is not None:
            # A database that can be read alone opens all the same.
            with file.open("r+b"):
                pass
        is_current = asyncio.run(Store.probe(settings.store_url))
    except StorageError as exc:
        yield "store", State.FAILED, str(exc)
    except OSError as exc:
        yield "store", State.FAILED, f"{file} cannot be written: {exc.strerror or exc}"
    else:
        reached = str(file) if file is not None else "reachable"
        yield "store", State.OK, reached if is_current else f"{reached} (its tables are made or changed at the next start)"


def _log_file(settings: "Config") -> Iterator[Line]:
    if settings.logging.structured_interceptions in {"off", "stderr"}:
        return
    file = Path(settings.logging.structured_interceptions)
    try:
        if file.exists():
            with file.open("ab"):
                pass
        else:
            with tempfile.TemporaryFile(dir=file.parent):
                pass
    except OSError as exc:
        yield "interception log", State.FAILED, f"{file} cannot be written: {exc.strerror or exc}"
    else:
        yield "interception log", State.OK, str(file)


def _ports(settings: "Config") -> Iterator[Line]:
    from aiproxyd.commands.running import running_daemon

    daemon = running_daemon(settings)
    taken = {*daemon.listen, *daemon.listen_tls, *daemon.listen_gateway, daemon.admin} if daemon is not None else set()
    addresses = [("proxy", address) for address in (*settings.listen, *settings.listen_tls.listen)]
    addresses += [("gateway", address) for address in settings.listen_gateway]
    for subject, address in (*addresses, ("admin", settings.admin.listen)):
        if daemon is not None and address in taken:
            yield subject, State.NOTE, f"{address} is held by the daemon that is running (process {daemon.pid})"
            continue
        problem = _bind(address)
        if problem:
            yield subject, State.FAILED, f"{address} cannot be listened on: {problem}"
        else:
            yield subject, State.OK, f"{address} is free"


def _bind(address: str) -> str:
    """Return why `address` cannot be listened on; empty when it can."""
    import socket

    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
            probe.listen(1)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""
