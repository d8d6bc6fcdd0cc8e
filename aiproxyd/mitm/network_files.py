"""Files that the network's settings name, read whole and judged: by workers who use them, by control before it lets workers use them."""

import ssl

from aiproxyd.config.schema import Config
from aiproxyd.mitm.egress import EgressSettings
from aiproxyd.mitm.tls import listener_context


def listener_context_of(config: Config) -> ssl.SSLContext | None:
    """Return the context of the listeners that speak TLS; None when there are none.

    Raises:
        CertificateError: The files of `listen_tls` cannot be used.
    """
    files = config.listen_tls
    if files.cert_file is None or files.key_file is None:
        return None
    return listener_context(files.cert_file, files.key_file)


def check_files(config: Config) -> None:
    """Return when every file can be used.

    Raises:
        CertificateError: One cannot.
    """
    listener_context_of(config)
    EgressSettings.of(config)
