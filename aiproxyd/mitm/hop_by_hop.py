"""Which header fields of a request end at this proxy and never reach an origin.

Those that are meant for this proxy by their name (`own_headers`): what an operator labels metrics by, and what Coder's gateway calls its
own. They are removed on every path. The rest is of one hop (RFC 9110 §7.6.1), and what is forwarded as it came keeps it.

Removed as of one hop: `Proxy-Authorization`, `Proxy-Connection` and every other field that begins with `proxy-`, and each field that `Connection`
names. `Connection` itself stays with what is true of the next connection too (`keep-alive`, `close`, `upgrade`), because requests of
one client connection use one upstream connection.

`Upgrade: h2c` is removed as well: what follows it would be HTTP/2 that nobody here looks at, and no client needs it inside TLS.

What frames or routes a message is not removable: a client that names `Content-Length` in `Connection` would otherwise smuggle requests.
"""

from collections.abc import Iterable

from aiproxyd.config.schema import Config
from aiproxyd.credentials import GOVERNANCE_TOKEN_HEADER

type Field = tuple[bytes, bytes]

REQUEST_ID_HEADER = "x-coder-ai-governance-request-id"
"""What a proxy before a gateway calls a request."""

GOVERNANCE_HEADERS = frozenset({GOVERNANCE_TOKEN_HEADER, REQUEST_ID_HEADER})

_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"})
_H2C = frozenset({b"upgrade", b"http2-settings"})
_KEPT_OPTIONS = frozenset({b"keep-alive", b"close", b"upgrade"})


def own_headers(config: Config) -> frozenset[str]:
    """Return the lower-case names of the fields that are meant for this proxy."""
    return GOVERNANCE_HEADERS | frozenset(config.metrics.header_labels.values())


def without_own(fields: Iterable[Field], names: frozenset[str]) -> tuple[Field, ...]:
    """Return the header fields of a request without those of the lower-case `names`."""
    return tuple(field for field in fields if field[0].lower().decode("latin-1") not in names)


def without_hop_by_hop(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Return the header fields of a request that may go on, in their order, with their letters as they came."""
    fields = tuple(fields)
    options = [
        option
        for name, value in fields
        if name.lower() == b"connection"
        for item in value.split(b",")
        if (option := item.strip(b" \t").lower())
    ]
    h2c = _H2C if any(name.lower() == b"upgrade" and b"h2c" in value.lower() for name, value in fields) else frozenset()
    removed = frozenset(options) - _FRAMING | h2c
    kept_options = _KEPT_OPTIONS - h2c
    is_clean = kept_options.issuperset(options)
    kept: list[Field] = []
    for field in fields:
        name = field[0].lower()
        if name in removed or name.startswith(b"proxy-"):
            continue
        if name == b"connection" and not is_clean:
            value = b", ".join(item for part in field[1].split(b",") if (item := part.strip(b" \t")).lower() in kept_options)
            if value:
                kept.append((field[0], value))
            continue
        kept.append(field)
    return tuple(kept)
