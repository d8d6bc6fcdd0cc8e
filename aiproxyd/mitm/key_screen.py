"""Keeps the operator's keys from the clients they are used for: answers go on without a key that a provider repeats in them.

Not for the client's own credential, which it knows, and not for records (`redaction` is).

* Heads, whatever their status, and trailers: each occurrence is replaced.
* Bodies of answers that are no success, with a status of 300 and more: kept back until they are whole, and looked through with their
  content coding undone. One without a key goes on byte for byte as it came. One with a key goes on without it, uncoded, with its length.
* Fails closed: a body that is larger than what is kept, or cannot be decoded, is replaced by an error of ours with its status.
* Bodies of successes flow as they come and are not looked through: what a provider makes of a request is not made of its key.
"""

import logging
from collections.abc import Callable

from aiproxyd.exceptions import MalformedBody, UnknownContentCoding
from aiproxyd.model.head import ResponseHead
from aiproxyd.provider_errors import Answer
from aiproxyd.redaction import without_forms
from aiproxyd.wire.content_coding import ContentDecoder
from aiproxyd.wire.http1 import Data, End, Head, ResponsePiece
from aiproxyd.wire.http1_edit import HeadEdits, edited
from aiproxyd.wire.http1_head import keeps_alive, whole_answer

log = logging.getLogger(__name__)

MAX_WITHHELD_BYTES = 256 << 10
"""Of the body of one answer, as it comes and decoded. Errors of providers are a few KiB."""

_FIRST_STATUS_WITHHELD = 300

# What says something about the body as it came.
_ABOUT_THE_BODY = frozenset(
    {"content-encoding", "content-length", "content-md5", "digest", "content-digest", "repr-digest", "etag"}
    | {"transfer-encoding", "trailer"}
)

_UNSEEN = "the provider's answer was left out: it could not be looked through for the key that the proxy used"


class KeyScreen:
    """The answers to one request that carries a key of the operator's."""

    def __init__(self, provider: str, forms: tuple[bytes, ...], error: Callable[[int, str], Answer]) -> None:
        """
        Args:
            provider: The entry's name.
            forms: Of every key of the entry, from `redaction.forms_of`.
            error: Returns an answer of ours with a status and a sentence, in the provider's shape.
        """
        self._provider = provider
        self._forms = forms
        self._error = error
        self._head: Head[ResponseHead] | None = None
        self._withheld: list[Data] = []
        self._withheld_bytes = 0

    @property
    def is_withholding(self) -> bool:
        """Whether the answer under way has not begun for the client."""
        return self._head is not None

    def passed(self, piece: ResponsePiece) -> bytes:
        """Return what goes on to the client now that `piece` came."""
        if isinstance(piece, Head):
            self._head = piece if piece.head.status_code >= _FIRST_STATUS_WITHHELD else None
            self._withheld, self._withheld_bytes = [], 0
        elif self._head is None and isinstance(piece, Data):
            return piece.raw
        elif isinstance(piece, Data):
            self._withheld_bytes += len(piece.raw)
            if self._withheld_bytes <= MAX_WITHHELD_BYTES:
                self._withheld.append(piece)
        if self._head is None:
            return without_forms(piece.raw, self._forms)
        return self._released(self._head, piece.raw) if isinstance(piece, End) else b""

    def _released(self, head: Head[ResponseHead], end: bytes) -> bytes:
        """Return the answer that is whole now."""
        self._head = None
        status = head.head.status_code
        if self._withheld_bytes > MAX_WITHHELD_BYTES:
            return self._replaced(head, f"it is larger than {MAX_WITHHELD_BYTES} bytes")
        try:
            body = _decoded(head.head, b"".join(piece.data for piece in self._withheld))
        except (MalformedBody, UnknownContentCoding) as exc:
            return self._replaced(head, str(exc))
        as_it_came = b"".join((head.raw, *(piece.raw for piece in self._withheld), end))
        cleared = without_forms(body, self._forms)
        if cleared == body and without_forms(as_it_came, self._forms) == as_it_came:
            return as_it_came
        log.warning("an answer of %s with status %d repeats its key; the client gets it without", self._provider, status)
        raw = without_forms(head.raw, self._forms)
        if not self._withheld:
            return raw + without_forms(end, self._forms)
        return edited(raw, HeadEdits(removed=_ABOUT_THE_BODY, fields=(("Content-Length", str(len(cleared))),))) + cleared

    def _replaced(self, head: Head[ResponseHead], why: str) -> bytes:
        status = head.head.status_code
        log.warning("an answer of %s with status %d cannot be looked through for its key: %s", self._provider, status, why)
        answer = self._error(status if status >= 400 else 502, _UNSEEN)
        return whole_answer(answer.status_code, answer.headers, answer.body, close=not keeps_alive(head.head))


def _decoded(head: ResponseHead, body: bytes) -> bytes:
    decoder = ContentDecoder(head.headers.tokens("content-encoding"), max_feed_output_bytes=MAX_WITHHELD_BYTES)
    decoded = b"".join(decoder.feed(body))
    decoder.close()
    return decoded
