"""The system's roots and ours in one file, for the variables that replace a client's trust instead of adding to it.

`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `AWS_CA_BUNDLE` and `GIT_SSL_CAINFO` do; hosts that a client reaches through a
tunnel, or without the proxy, would break if they named our CA alone.
"""

import re
import ssl
from pathlib import Path
from typing import NamedTuple

from aiproxyd.ca.files import CERTIFICATE_NAME, private_folder, write_whole
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import CertificateError

BUNDLE_NAME = "ca-bundle.pem"
TRUST_NAME = "ca-trust.pem"

# Where Debian, Fedora and RHEL (two generations), SUSE, Alpine and macOS keep them; for Pythons built for another place.
_KNOWN_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s.+?\s-----END CERTIFICATE-----", re.DOTALL)


class ClientFiles(NamedTuple):
    """What clients are pointed at."""

    certificates: Path
    """Our CA with its chain, for variables that add to a client's trust."""
    bundle: Path
    """The system's roots besides, for variables that replace it."""


def client_files(config: Config) -> ClientFiles:
    """Return the files that clients trust, written now where they are missing or old. The CA is made when there is none.

    Raises:
        CertificateError: The CA cannot be read or made, or a file cannot be written.
    """
    folder = config.data_dir / "ca"
    own = config.ca.cert_file
    source = own if own is not None else folder / CERTIFICATE_NAME
    if own is None and not source.exists():
        from aiproxyd.ca.authority import CertificateAuthority

        CertificateAuthority.create(folder)
    try:
        # The key is not needed, and may not be ours to read.
        certificates = certificates_in(source.read_bytes())
    except OSError as exc:
        raise CertificateError(f"the CA certificate file {source} cannot be read: {exc.strerror or exc}") from exc
    if not certificates:
        raise CertificateError(f"the CA certificate file {source} holds no PEM certificate")
    if own is not None:
        # An operator's file may hold the key as well; what tools are pointed at does not.
        source = folder / TRUST_NAME
        _write_changed(source, certificates)
    bundle = folder / BUNDLE_NAME
    _write_changed(bundle, bundle_of(certificates, besides=bundle))
    return ClientFiles(source, bundle)


def bundle_of(trust_pem: bytes, *, besides: Path | None = None) -> bytes:
    """Return the system's roots and `trust_pem`, each certificate once.

    Args:
        trust_pem: Our CA with its chain; it stands first.
        besides: A file that is no source of roots even if the environment names it: the bundle itself.
    """
    return certificates_in(trust_pem + b"\n" + system_roots(besides=besides))


def certificates_in(content: bytes) -> bytes:
    """Return the certificates of a PEM file, each once and nothing else; empty when there is none."""
    return b"".join(block + b"\n" for block in dict.fromkeys(_BLOCK.findall(content)))


def system_roots(*, besides: Path | None = None) -> bytes:
    """Return the roots that this machine trusts, in PEM; certifi's where it has none in one file.

    Args:
        besides: A file that is not read even if the environment names it.
    """
    paths = ssl.get_default_verify_paths()
    # `cafile` heeds SSL_CERT_FILE, so that the roots of an operator who set it are kept. In a shell that has pasted our own
    # exports it names our bundle, and a removed root would live for ever.
    for name in (paths.cafile, paths.openssl_cafile, *_KNOWN_FILES):
        if not name or (besides is not None and _same(Path(name), besides)):
            continue
        try:
            content = Path(name).read_bytes()
        except OSError:
            continue
        if b"-----BEGIN CERTIFICATE-----" in content:
            return content
    import certifi

    return Path(certifi.where()).read_bytes()


def _write_changed(path: Path, content: bytes) -> None:
    try:
        if not path.exists() or path.read_bytes() != content:
            private_folder(path.parent)
            write_whole(path, content, mode=0o644)
    except OSError as exc:
        raise CertificateError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
