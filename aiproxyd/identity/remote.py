"""A worker's side of authentication: asks control over the channel and remembers both answers for a short time.

Fails closed: without an answer there is an error, never a principal.
"""

import asyncio
import hashlib
import itertools
import time
from collections import OrderedDict

from aiproxyd.channel import Answer, Authenticate, Channel
from aiproxyd.exceptions import AiproxydError
from aiproxyd.identity.answer import Identified
from aiproxyd.model.principal import Principal

# A guess a second for two hours fills it; an entry is about 200 bytes, so it stays below 2 MB.
MAX_REMEMBERED_ANSWERS = 8192

# Control answers from memory or one indexed look-up; when it takes longer it is not healthy.
ANSWER_TIMEOUT_SECONDS = 10.0


class RemoteIdentity:
    """Answers `authenticate` from memory or from control."""

    def __init__(self, channel: Channel, *, cache_seconds: float) -> None:
        self.cache_seconds = cache_seconds
        self.met_session = asyncio.Event()
        """Set once somebody was let in by a session (see `Principal`)."""
        self._channel = channel
        self._questions = itertools.count(1)
        self._open: dict[int, asyncio.Future[Identified]] = {}
        self._asked: dict[bytes, asyncio.Future[Identified]] = {}
        # Keyed by digest, so that a memory dump of a worker holds no token it is not using right then.
        self._remembered: OrderedDict[bytes, tuple[float, Principal | None]] = OrderedDict()
        self._forgotten = 0
        """How often everything was forgotten."""

    async def authenticate(self, credential: str) -> Principal | None:
        """Return whose credential it is, or None when it is nobody's.

        Raises:
            AiproxydError: Nobody could be asked; the caller refuses.
        """
        try:
            digest = hashlib.sha256(credential.encode()).digest()
        except UnicodeEncodeError:
            return None  # bytes that are no text: no token was ever made like that
        remembered = self._remembered.get(digest)
        if remembered is not None and remembered[0] > time.monotonic():
            return remembered[1]
        forgotten = self._forgotten
        answer = self._asked.get(digest)
        if answer is None:
            # One question for however many connections wait for the same answer.
            question = next(self._questions)
            answer = asyncio.get_running_loop().create_future()
            answer.add_done_callback(lambda done: self._close(question, digest, done))
            self._open[question] = self._asked[digest] = answer
            answer.get_loop().call_later(ANSWER_TIMEOUT_SECONDS, self._fail, question, "control did not answer in time")
            self._channel.send(Authenticate(question=question, credential=credential))
        identified = await asyncio.shield(answer)
        principal, fresh_seconds = identified.principal, identified.fresh_seconds
        if forgotten != self._forgotten:
            return principal  # of before a user was revoked: good for this once, and not to be remembered
        seconds = self.cache_seconds if fresh_seconds is None else min(self.cache_seconds, fresh_seconds)
        self._remembered[digest] = (time.monotonic() + seconds, principal)
        self._remembered.move_to_end(digest)
        if len(self._remembered) > MAX_REMEMBERED_ANSWERS:
            self._remembered.popitem(last=False)
        return principal

    def answered(self, answer: Answer) -> None:
        """Take control's answer."""
        if answer.failure:
            self._fail(answer.question, answer.failure)
            return
        waiting = self._open.get(answer.question)
        if waiting is not None and not waiting.done():
            if answer.principal is not None and answer.principal.session:
                self.met_session.set()
            waiting.set_result(Identified(answer.principal, answer.fresh_seconds))

    def forget(self) -> None:
        """Drop every remembered answer, and do not remember those that are on their way."""
        self._remembered.clear()
        self._asked.clear()
        self._forgotten += 1

    def lose_control(self) -> None:
        """Fail every open question: control is gone."""
        for question in list(self._open):
            self._fail(question, "control is gone")

    def _close(self, question: int, digest: bytes, answer: asyncio.Future[Identified]) -> None:
        self._open.pop(question, None)
        if self._asked.get(digest) is answer:  # another one was asked after `forget`
            del self._asked[digest]

    def _fail(self, question: int, reason: str) -> None:
        waiting = self._open.get(question)
        if waiting is not None and not waiting.done():
            waiting.set_exception(AiproxydError(f"the credential could not be checked: {reason}"))
            # Marks it as seen, for the case that its client left meanwhile.
            waiting.exception()
