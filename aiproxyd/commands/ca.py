"""`aiproxyd ca`: make, show and hand out the certificate authority."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration

if TYPE_CHECKING:
    from aiproxyd.ca.authority import CertificateAuthority
    from aiproxyd.config.schema import Config

app = typer.Typer(help="The certificate authority that clients trust.", rich_markup_mode=None)


@app.command()
def init(
    config: ConfigOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a CA that is there; clients must trust the new one.")] = False,
) -> None:
    """Make the CA, as the first start does.

    For example:

      aiproxyd ca init

      aiproxyd ca init --force
    """
    from aiproxyd.ca.authority import CertificateAuthority
    from aiproxyd.ca.files import CERTIFICATE_NAME
    from aiproxyd.exceptions import CertificateError, ConfigError

    settings = read_configuration(config)
    if settings.ca.cert_file is not None:
        raise ConfigError(f"ca.cert_file names {settings.ca.cert_file}, so there is no CA to make")
    folder = settings.data_dir / "ca"
    if not force and (folder / CERTIFICATE_NAME).exists():
        raise CertificateError(
            f"{folder / CERTIFICATE_NAME} is there already; --force replaces it, and every client must trust the new one"
        )
    _print(CertificateAuthority.create(folder, replace=force))


@app.command()
def show(config: ConfigOption = None) -> None:
    """Print whose CA it is, and how to tell it from others.

    For example:

      aiproxyd ca show
    """
    _print(_existing(read_configuration(config)))


@app.command()
def export(
    bundle: Annotated[bool, typer.Option("--bundle", help="Add the roots that this machine trusts.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output when absent.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    config: ConfigOption = None,
) -> None:
    """Write the certificate that clients trust, never the key.

    A variable that adds to a client's trust (NODE_EXTRA_CA_CERTS) takes it as it is. One that replaces it (SSL_CERT_FILE,
    REQUESTS_CA_BUNDLE) needs --bundle.

    For example:

      aiproxyd ca export --output aiproxyd-ca.pem

      aiproxyd ca export --bundle --output /etc/ssl/ai-bundle.pem
    """
    from aiproxyd.ca.bundle import bundle_of
    from aiproxyd.ca.files import write_new, write_whole
    from aiproxyd.exceptions import CertificateError

    trust = _existing(read_configuration(config)).trust_pem
    content = bundle_of(trust) if bundle else trust
    if output is None:
        typer.echo(content.decode("ascii"), nl=False)
        return
    if force:
        write_whole(output, content, mode=0o644)
        return
    try:
        write_new(output, content, mode=0o644)
    except FileExistsError as exc:
        raise CertificateError(f"{output} is there already; --force overwrites it") from exc


def _existing(settings: "Config") -> "CertificateAuthority":
    """Return the CA in use, without making one."""
    from aiproxyd.ca.authority import CertificateAuthority
    from aiproxyd.ca.files import CERTIFICATE_NAME, KEY_NAME
    from aiproxyd.exceptions import CertificateError

    if settings.ca.cert_file is not None and settings.ca.key_file is not None:
        return CertificateAuthority.load(settings.ca.cert_file, settings.ca.key_file)
    folder = settings.data_dir / "ca"
    if not (folder / CERTIFICATE_NAME).exists():
        raise CertificateError(f"there is no CA in {folder}; `aiproxyd ca init` or the first `aiproxyd run` makes one")
    return CertificateAuthority.load(folder / CERTIFICATE_NAME, folder / KEY_NAME)


def _print(ca: "CertificateAuthority") -> None:
    certificate = ca.certificate
    rows = [
        ("subject", certificate.subject.rfc4514_string()),
        ("valid from", f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"),
        ("valid until", f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"),
        ("SHA-256", ca.fingerprint),
        ("certificate", str(ca.certificate_file.absolute())),
        ("key", str(ca.key_file.absolute())),
    ]
    if certificate.issuer != certificate.subject:
        rows.insert(1, ("issuer", certificate.issuer.rfc4514_string()))
    for name, value in rows:
        typer.echo(f"{name:<12} {value}")
