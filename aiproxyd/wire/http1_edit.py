"""Changes to the head of a request that goes on as it came otherwise: order, case and spelling of all other fields stay.

Not for what frames the message: those who edit `Content-Length` or `Transfer-Encoding` have another body to send.
"""

import msgspec


class HeadEdits(msgspec.Struct, frozen=True):
    """What is changed on a request's head."""

    target: str = ""
    """Instead of the target as it was written; empty keeps it."""
    removed: frozenset[str] = frozenset()
    """Lower-case names of fields that are taken off."""
    fields: tuple[tuple[str, str], ...] = ()
    """Names and values of fields that are set: in the place of the first one of the name, else at the end. Latin-1, one line."""


def edited(raw: bytes, edits: HeadEdits) -> bytes:
    """Return the well-formed request head `raw` with `edits`.

    Raises:
        ValueError: A value, or the target, would be more than one line or word, or is no Latin-1.
    """
    start, _, rest = raw.removesuffix(b"\r\n").partition(b"\r\n")
    if edits.target:
        method, _, version = start.split(b" ", 2)
        start = b" ".join((method, _word(edits.target), version))
    wanted = {name.lower(): _line(name, value) for name, value in edits.fields}
    unplaced = dict(wanted)
    kept = [start + b"\r\n"]
    is_kept = True
    for line in rest.splitlines(keepends=True) if b"\r\n" in rest else ():
        if not line.startswith((b" ", b"\t")):  # otherwise it belongs to the field before
            name = line.partition(b":")[0].lower().decode("latin-1")
            is_kept = name not in edits.removed and name not in wanted
            if name in unplaced:
                kept.append(unplaced.pop(name))
        if is_kept:
            kept.append(line)
    return b"".join((*kept, *unplaced.values(), b"\r\n"))


def _line(name: str, value: str) -> bytes:
    if "\r" in value or "\n" in value or "\0" in value:
        message = f"the value of {name} is more than one line"
        raise ValueError(message)
    return f"{name}: {value}\r\n".encode("latin-1")


def _word(target: str) -> bytes:
    if not target.isascii() or not target.isprintable() or " " in target:
        message = "a request target is one word of ASCII"
        raise ValueError(message)
    return target.encode("latin-1")
