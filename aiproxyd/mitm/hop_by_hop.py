"""Which header fields of a request end at this proxy and never reach an origin (RFC 9110 §7.6.1).

Removed: `Proxy-Authorization`, `Proxy-Connection` and every other field that begins with `proxy-`, and each field that `Connection`
names. `Connection` itself stays with what is true of the next connection too (`keep-alive`, `close`, `upgrade`), because requests of
one client connection use one upstream connection.

What frames or routes a message is not removable: a client that names `Content-Length` in `Connection` would otherwise smuggle requests.
"""

from collections.abc import Iterable

type Field = tuple[bytes, bytes]

_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"})
_KEPT_OPTIONS = frozenset({b"keep-alive", b"close", b"upgrade"})


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
    named = frozenset(options) - _FRAMING
    foreign = any(option not in _KEPT_OPTIONS for option in options)
    kept: list[Field] = []
    for name, value in fields:
        lower = name.lower()
        if lower in named or lower.startswith(b"proxy-"):
            continue
        if lower == b"connection" and foreign:
            value = b", ".join(item for part in value.split(b",") if (item := part.strip(b" \t")).lower() in _KEPT_OPTIONS)
            if not value:
                continue
        kept.append((name, value))
    return tuple(kept)
