"""One request of a courier's client and its answer: what is kept of it, and what came of each try to have it answered."""

import asyncio
import enum

from aiproxyd.mitm.decrypted import AbortedBy, RequestTap
from aiproxyd.mitm.kept_body import KeptBody
from aiproxyd.mitm.key_screen import KeyScreen
from aiproxyd.mitm.leg import Leg
from aiproxyd.mitm.route import Route
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.wire.http1 import Data, Interim, ResponsePiece
from aiproxyd.wire.http1_head import request_length

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# So much of a request that is answered by us is read and forgotten, to keep the connection; with more to come it is closed.
MAX_FORGOTTEN_BYTES = 16 << 20


class Tried(enum.Enum):
    """What came of a try."""

    ANSWERED = enum.auto()
    """The answer is on its way to the client."""
    NEXT_KEY = enum.auto()
    """The key was not accepted; nothing of the answer went to the client."""
    STALE = enum.auto()
    """A connection that had been used before ended without a byte."""
    ENDED = enum.auto()
    """The connection ended before an answer."""
    SILENT = enum.auto()
    """No byte came in time."""
    UNREADABLE = enum.auto()
    """What came is no HTTP."""


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_is_forgotten",
        "_verdict",
        "answer",
        "attempts",
        "body",
        "head",
        "is_answered",
        "is_sent",
        "leg",
        "raw",
        "received",
        "refusal",
        "remark",
        "route",
        "said_continue",
        "screen",
        "tap",
    )

    def __init__(self, raw: bytes, head: RequestHead) -> None:
        self.raw = raw
        """Its head as it came."""
        self.head = head
        self.route: Route | None = None
        """None until it is known; nothing of the body is taken before."""
        self.screen: KeyScreen | None = None
        """What its answer goes through; None where it goes on as it comes."""
        self.tap: RequestTap | None = None
        self.body = KeptBody(0)
        self.received = asyncio.Event()
        """Set when the body is whole, or larger than what is kept."""
        self.leg: Leg | None = None
        """What carries it now."""
        self.attempts = 0
        self.is_sent = False
        """Whether the client has sent all of it."""
        self.answer: ResponseHead | None = None
        """The head of what the client gets; None before it is known."""
        self.is_answered = False
        """Whether the answer is whole."""
        self.refusal: tuple[AbortedBy, str] | None = None
        """Why the answer is ours, for the record."""
        self.said_continue = False
        """Whether the client was told to go on with its body."""
        self.remark = ""
        """For the record: why it was not tried again."""
        self._verdict: asyncio.Future[Tried] | None = None
        self._is_forgotten = False

    @property
    def hint(self) -> str:
        """The mask of the key of ours that is in use; empty where there is none."""
        return (self.route.hint or "") if self.route is not None else ""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits to be told to go on with its body."""
        return not self.said_continue and "100-continue" in self.head.headers.tokens("expect")

    @property
    def is_upgraded(self) -> bool:
        """Whether another protocol follows."""
        return self.answer is not None and self.answer.status_code == 101

    # The body

    @property
    def takes_body(self) -> bool:
        """Whether the next bytes of the body have somewhere to go."""
        if self._is_forgotten or self.leg is not None:
            return True
        return self.route is not None and self.route.needs_body and not self.received.is_set()

    def keep(self, piece: Data) -> None:
        """Keep bytes of the body for another try."""
        if self.answer is not None:
            return
        was_whole = self.body.is_whole
        self.body.add(piece)
        if was_whole and not self.body.is_whole:
            self.note_received()
            if self.leg is not None:
                self.body.drop()  # it has left: there is no other try

    def note_received(self) -> None:
        """All of the body that is waited for is there."""
        self.received.set()

    def forget_rest(self) -> None:
        """Read the rest of the body for nothing: the answer is ours."""
        self._is_forgotten = True
        self.body.drop()

    @property
    def rest_is_small(self) -> bool:
        """Whether the rest of the body is worth reading, to keep the connection."""
        if self.is_sent:
            return True
        length = request_length(self.head)
        return length is not None and length <= MAX_FORGOTTEN_BYTES and not self.expects_continue

    # Tries

    @property
    def is_undecided(self) -> bool:
        """Whether a try is under way."""
        return self._verdict is not None

    def try_with(self, leg: Leg) -> asyncio.Future[Tried]:
        """Begin a try."""
        self.leg = leg
        self.attempts += 1
        self._verdict = asyncio.get_running_loop().create_future()
        return self._verdict

    def decide(self, tried: Tried) -> None:
        """End the try under way, if there is one."""
        verdict, self._verdict = self._verdict, None
        if verdict is not None and not verdict.done():
            verdict.set_result(tried)

    def passes_on(self, interim: Interim) -> bool:
        """Return whether an interim answer is for the client."""
        if interim.status_code != 100:
            return True
        is_first = not self.said_continue
        self.said_continue = True
        return is_first

    @property
    def is_withheld(self) -> bool:
        """Whether the answer under way has not begun for the client, because all of it is looked at first."""
        return self.screen is not None and self.screen.is_withholding

    def outgoing(self, piece: ResponsePiece) -> bytes:
        """Return what goes on to the client now that `piece` of its answer came."""
        return piece.raw if self.screen is None else self.screen.passed(piece)

    def accept(self, head: ResponseHead) -> None:
        """Take `head` for the answer; there is no other try."""
        self.answer = head
        self.body.drop()
        self.settle(head.status_code)
        self.decide(Tried.ANSWERED)

    def settle(self, status_code: int | None, *, is_failure: bool = False) -> None:
        """Tell the route what came of it; only the first call counts."""
        if self.route is not None:
            self.route.settle(status_code, is_failure=is_failure)
