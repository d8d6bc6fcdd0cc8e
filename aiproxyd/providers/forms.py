"""Short fields of a form with files (`multipart/form-data`), as image and audio APIs take them. Not a reader of the files.

Facts (RFC 7578, RFC 2046 §5.1):
- Parts are separated by a line of two hyphens and the boundary, which the content type names. A part has header fields, an empty line,
  and its value up to the line ending before the next separator.
- `Content-Disposition` names the field; with `filename` it is a file.
"""

import re
from collections.abc import Collection
from typing import Final

MAX_VALUE_BYTES: Final = 64 << 10
"""Longer values of fields are cut; a prompt for an image is below 32,000 characters."""

MAX_PARTS: Final = 1024
"""Parts beyond are not read."""

_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'[;\s]name="([^"\r\n]{1,100})"', re.IGNORECASE)
_FILE: Final = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)
_MAX_HEAD_BYTES: Final = 4096


def form_fields(body: bytes, content_type: str, names: Collection[str]) -> dict[str, str]:
    """Return the fields among `names` that are no files; of one that comes twice, the last. Total: what is no form has none.

    Args:
        body: The whole body.
        content_type: The value of the header field, which has the boundary.
        names: Of the wanted fields.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        return {}
    separator = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    fields: dict[str, str] = {}
    at = body.find(separator)
    for _ in range(MAX_PARTS):
        if at < 0:
            break
        start = at + len(separator)
        end = body.find(b"\r\n" + separator, start)
        head_end = body.find(b"\r\n\r\n", start, start + _MAX_HEAD_BYTES)
        if head_end >= 0 and (end < 0 or head_end <= end):
            head = body[start:head_end]
            name = _NAME.search(head)
            if name is not None and _FILE.search(head) is None and (field := name[1].decode("utf-8", "replace")) in names:
                value_start = head_end + 4
                stop = len(body) if end < 0 else max(end, value_start)
                fields[field] = body[value_start : min(stop, value_start + MAX_VALUE_BYTES)].decode("utf-8", "replace")
        at = end + 2 if end >= 0 else -1
    return fields
