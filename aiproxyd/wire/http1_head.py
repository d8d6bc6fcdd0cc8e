"""Heads of HTTP/1.1 messages: taken apart, measured for their body, and changed byte-exactly. The followers are in `http1`.

What could be read in two ways is `Unfollowable`, with a reason (RFC 9112 §11.2): a guess here would be request smuggling.

Strategy: one regular expression says whether a whole head is well-formed, a second one takes its fields apart; both run in C,
and every quantifier is possessive, so that neither can be made to backtrack.
"""

import re
from collections.abc import Collection, Iterable
from http import HTTPStatus

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import Headers, RequestHead, ResponseHead

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_MAX_LENGTH_DIGITS = 18  # 10**18 bytes is more than any transfer, and int() of more digits costs

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TEXT = r"[^\x00-\x08\x0a-\x1f\x7f]*+"
# A field's value may go on in lines that begin with white space (obs-fold, RFC 9112 §5.2).
_FIELDS = rf"((?:{_NAME}:{_TEXT}\r\n(?:[ \t]{_TEXT}\r\n)*+)*+)\r\n"
_REQUEST = re.compile(rf"({_NAME}) ([^\x00-\x20\x7f]++) HTTP/1\.([01])\r\n{_FIELDS}")
_RESPONSE = re.compile(rf"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: {_TEXT})?+\r\n{_FIELDS}")
_FIELD = re.compile(rf"({_NAME}):({_TEXT}(?:\r\n[ \t]{_TEXT})*+)\r\n")
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
_PROXY_FIELD = re.compile(rb"(?<=\r\n)proxy-[^\r\n:]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", re.IGNORECASE)

# Fields that decide where a message ends or goes: a folded one is read differently by different servers.
_UNFOLDABLE = frozenset({"content-length", "transfer-encoding", "host", "connection", "upgrade"})
# Names of `Connection` that are not fields of one hop, whatever a client says.
_FRAMING = frozenset({"content-length", "transfer-encoding", "host", "connection", "upgrade", "expect", "keep-alive", "close"})

_HOW_TO_USE = "this is a proxy: set HTTPS_PROXY to its address; `aiproxyd env` prints the lines"


class Unfollowable(Exception):
    """A head that could be read in two ways, or in none. The followers turn it into `Opaque`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """A bounded word."""


def read_request(raw: bytes) -> tuple[RequestHead, str]:
    """Return a request's head and its target as it was written.

    The head's path and query are those of the origin form, whatever the form of the target.

    Args:
        raw: A whole head with the empty line at its end, and nothing after.

    Raises:
        Unfollowable: It is not well-formed.
    """
    match = _REQUEST.fullmatch(raw.decode("latin-1"))
    if match is None:
        raise Unfollowable("head")
    method, target, minor, fields = match.groups()
    return RequestHead(method, _origin_form(target), _fields(fields), f"1.{minor}"), target


def read_response(raw: bytes) -> ResponseHead:
    """Return a response's head.

    Args:
        raw: A whole head with the empty line at its end, and nothing after.

    Raises:
        Unfollowable: It is not well-formed.
    """
    match = _RESPONSE.fullmatch(raw.decode("latin-1"))
    if match is None:
        raise Unfollowable("head")
    return ResponseHead(int(match[2]), _fields(match[3]), f"1.{match[1]}")


def request_length(head: RequestHead) -> int | None:
    """Return the length of a request's body in bytes; None is chunked.

    Raises:
        Unfollowable: It could be read in two ways.
    """
    headers = head.headers
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise Unfollowable("both_lengths")
        _require_chunked(headers, head.version)
        return None
    return _content_length(headers) if "content-length" in headers else 0


UNTIL_CLOSE = -1
"""The length of a response that ends with its connection."""


def response_length(head: ResponseHead, method: str) -> int | None:
    """Return the length of a final response's body in bytes; None is chunked.

    Args:
        head: The response's.
        method: That of its request.

    Raises:
        Unfollowable: It could be read in two ways.
    """
    if method == "HEAD" or head.status_code in {204, 304}:
        return 0
    if "transfer-encoding" in head.headers:
        # Content-Length beside it is overridden (RFC 9112 §6.3 rule 3), and every client reads it so.
        _require_chunked(head.headers, head.version)
        return None
    return _content_length(head.headers) if "content-length" in head.headers else UNTIL_CLOSE


def parse_request(raw: bytes) -> tuple[RequestHead, str]:
    """Return what `read_request` does, for a request that we are to answer or to forward ourselves.

    Raises:
        MalformedBody: It is not well-formed, or its end could be read in two ways.
    """
    try:
        head, target = read_request(raw)
        request_length(head)
    except Unfollowable as exc:
        raise MalformedBody(f"the request head is malformed ({exc.reason})") from None
    return head, target


def has_proxy_fields(raw: bytes) -> bool:
    """Return whether a well-formed head has a field that is meant for a proxy, by its name. May be wrong only by saying yes."""
    return b"\r\nproxy-" in raw.lower()


def without_proxy_fields(raw: bytes) -> bytes:
    """Return a well-formed head without its `Proxy-*` fields, every other byte as it was."""
    return _PROXY_FIELD.sub(b"", raw)


def without_fields(raw: bytes, names: Collection[str]) -> bytes:
    """Return a well-formed head without the fields of the lower-case `names`, every other byte as it was."""
    for name in names:
        raw = _field_pattern(name).sub(b"", raw)
    return raw


def for_origin(raw: bytes, head: RequestHead, target: str) -> bytes:
    """Return the head of a plain `http://` request as its origin expects it, every other byte as it was.

    The target is in origin form (RFC 9112 §3.2.1), `Host` says what the target said (§3.2.2), and `Proxy-*` fields and those
    that `Connection` names are gone (RFC 9110 §7.6.1), but for what frames or routes the message: a client that names
    `Content-Length` in `Connection` would otherwise smuggle requests.

    Args:
        raw: The head as it came.
        head: The same, parsed.
        target: The same head's target as it was written, in absolute form.
    """
    start, fields = _hop_by_hop_removed(raw, head, target)
    start = start.replace(target.encode("latin-1"), _origin_form(target).encode("latin-1"), 1)
    return start + b"\r\n" + fields


def for_proxy(raw: bytes, head: RequestHead, target: str, authorization: str) -> bytes:
    """Return the head of a plain `http://` request as another proxy expects it: as `for_origin`, but in absolute form.

    Args:
        raw: See `for_origin`.
        head: See `for_origin`.
        target: See `for_origin`.
        authorization: Value of `Proxy-Authorization` for that proxy; empty for none.
    """
    start, fields = _hop_by_hop_removed(raw, head, target)
    ours = f"Proxy-Authorization: {authorization}\r\n".encode("latin-1") if authorization else b""
    return start + b"\r\n" + ours + fields


def _hop_by_hop_removed(raw: bytes, head: RequestHead, target: str) -> tuple[bytes, bytes]:
    """Return the request line and the fields that may go on, `Host` as the target says."""
    match = _ABSOLUTE_FORM.match(target)
    authority = match[0].partition("://")[2] if match is not None else ""
    start, _, fields = without_proxy_fields(raw).partition(b"\r\n")
    fields = without_fields(fields, frozenset(head.headers.tokens("connection")) - _FRAMING)
    if [value.lower() for value in head.headers.all("host")] != [authority.lower()]:
        fields = re.sub(rb"(?:(?<=\r\n)|\A)host:[^\r\n]*\r\n", b"", fields, flags=re.IGNORECASE)
        fields = b"Host: " + authority.encode("latin-1") + b"\r\n" + fields
    return start, fields


def keeps_alive(head: RequestHead | ResponseHead) -> bool:
    """Return whether the sender of `head` means to use its connection again. HTTP/1.0 is taken not to."""
    return head.version == "1.1" and "close" not in head.headers.tokens("connection")


def plain_answer(status_code: int, phrase: str, message: str, *fields: str, close: bool = False) -> bytes:
    """Return a whole response with a short text for a person or an agent.

    Args:
        status_code: The status.
        phrase: The reason phrase.
        message: One line of text.
        fields: Further header lines, without line ends.
        close: Whether to say that the connection ends here.
    """
    body = f"aiproxyd: {message}\n".encode()
    lines = [
        f"HTTP/1.1 {status_code} {phrase}",
        "Content-Type: text/plain; charset=utf-8",
        "Cache-Control: no-store",
        f"Content-Length: {len(body)}",
        *fields,
        *(["Connection: close"] if close else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def whole_answer(
    status_code: int, fields: Iterable[tuple[str, str]], body: bytes, *, has_body: bool = True, close: bool = False
) -> bytes:
    """Return a whole response of our own.

    Args:
        status_code: The status.
        fields: Names and values of its fields, without those that frame it.
        body: What it says.
        has_body: False for the answer to a HEAD, which has the fields alone.
        close: Whether to say that the connection ends here.
    """
    lines = [
        f"HTTP/1.1 {status_code} {_PHRASES.get(status_code, 'Error')}",
        *(f"{name}: {value}" for name, value in fields),
        "cache-control: no-store",
        f"content-length: {len(body)}",
        *(["connection: close"] if close else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body if has_body else b"")


def _origin_form(target: str) -> str:
    if target.startswith("/"):
        return target
    match = _ABSOLUTE_FORM.match(target)
    if match is None:
        return target  # authority form of CONNECT, asterisk form of OPTIONS
    rest = target[match.end() :]
    return rest if rest.startswith("/") else "/" + rest


def _field_pattern(name: str) -> re.Pattern[bytes]:
    # Not kept by us: the names of `Connection` are the client's, and `re` bounds its own cache.
    pattern = rb"(?:(?<=\r\n)|\A)" + re.escape(name.encode("latin-1")) + rb":[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*"
    return re.compile(pattern, re.IGNORECASE)


def _fields(text: str) -> Headers:
    if "\r\n " not in text and "\r\n\t" not in text:
        # No field is folded, so each line is one. Splitting costs half of what the expression does.
        lines = [line.partition(":") for line in text.split("\r\n")[:-1]]
        return Headers([(name, value.strip(" \t")) for name, _, value in lines])
    fields = []
    for name, value in _FIELD.findall(text):
        if "\r\n" in value and name.lower() in _UNFOLDABLE:
            raise Unfollowable("folded_" + name.lower().replace("-", "_"))
        fields.append((name, _FOLD.sub(" ", value).strip(" \t")))
    return Headers(fields)


def _content_length(headers: Headers) -> int:
    fields = headers.all("content-length")
    text = fields[0]
    values: set[str] = set()
    if len(fields) > 1 or "," in text:
        # A list of equal values is a repetition, anything else two readings (RFC 9110 §8.6).
        values = {value.strip(" \t") for field in fields for value in field.split(",")}
        text = values.pop()
    if values or not (text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS):
        raise Unfollowable("content_length")
    return int(text)


def _require_chunked(headers: Headers, version: str) -> None:
    # Any other coding, or chunked twice, is not ours to take off; HTTP/1.0 does not know the field.
    if version == "1.0" or [value.lower() for value in headers.all("transfer-encoding")] != ["chunked"]:
        raise Unfollowable("transfer_encoding")


def authority_of(target: str) -> str:
    """Return the authority of a plain request to a proxy: of its target in absolute form.

    Args:
        target: As it was written.

    Raises:
        MalformedBody: It is of another form or scheme; the message says what to do.
    """
    scheme, separator, rest = target.partition("://")
    if not separator:
        raise MalformedBody(_HOW_TO_USE)
    if scheme.lower() != "http":
        raise MalformedBody(f"{scheme[:20]!r} URLs go through this proxy by CONNECT")
    for end in "/?#":
        rest = rest.partition(end)[0]
    if "@" in rest:
        raise MalformedBody("a URL with user information is not forwarded")
    return rest
