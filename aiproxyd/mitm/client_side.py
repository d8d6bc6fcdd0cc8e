"""A courier's client: TLS with it if any, what it sends, what it is told, and how its connection ends.

Not where HTTP is understood: bytes go to the user, and only the time that a head takes is watched here.
"""

import asyncio
import socket
import ssl
from typing import Protocol

from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.mitm.pair import LINGER_SECONDS
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.stream import Stream
from aiproxyd.mitm.tls import client_failure
from aiproxyd.model.observation import ClientTlsFailed

# Of an OpenSSL message that goes into an observation.
_MAX_DETAIL_CHARACTERS = 200


class ClientUser(Protocol):
    """Who is told what happens on the client's side, in callbacks of the loop."""

    def client_ready(self) -> None:
        """It may be served."""

    def from_client(self, data: bytes) -> None:
        """It sent something."""

    def client_drained(self) -> None:
        """It has taken all that was written to it."""

    def client_left(self, detail: str, reason: str) -> None:
        """It is gone: a sentence, and the word for `close`."""

    def head_too_slow(self) -> None:
        """A request's head did not come in time."""

    def client_idle(self) -> None:
        """Nothing happened for too long."""

    def close(self, reason: str) -> None:
        """Close everything."""


class ClientSide:
    """One client's stream."""

    def __init__(
        self, client: socket.socket, user: ClientUser, *, settings: RelaySettings, deadlines: Deadlines, reporter: Reporter
    ) -> None:
        """Take over a connected, non-blocking socket. Nothing moves before `secure` or `start`."""
        self._stream = Stream(client, self, asyncio.get_running_loop())
        self._user = user
        self._settings = settings
        self._deadlines = deadlines
        self._reporter = reporter
        self._tls_host = ""
        self.is_ending = False
        """Whether nothing more is read, and the connection closes when all that was written has left."""
        self._is_ragged = False
        self._lingers = False
        self._is_lingering = False
        self._idle: Deadline | None = None
        self._head: Deadline | None = None

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS as `host`; the user is told when it stands."""
        self._tls_host = host
        self._idle = self._deadlines.start(self._settings.client_tls_timeout_seconds, self._too_slow)
        self._stream.secure(context, self._secured, server_side=True)

    def start(self) -> None:
        """Serve."""
        self.wait_for_bytes(None)
        self._stream.resume()
        self._user.client_ready()

    @property
    def has_unsent(self) -> bool:
        """Whether it has not taken all that was written."""
        return self._stream.has_unsent

    @property
    def is_paused(self) -> bool:
        """Whether what it sends is left in the kernel."""
        return self._stream.is_paused

    def set_reading(self, reads: bool) -> None:  # noqa: FBT001  (what it is about)
        """Read, or leave what arrives in the kernel, so that it feels it."""
        if self.is_ending:
            return
        if reads:
            self._stream.resume()
        else:
            self._stream.pause()

    def write(self, data: bytes) -> bool:
        """Send `data`; return whether all of it left. A client that is gone is told of to the user."""
        try:
            return self._stream.write(data)
        except OSError:
            self._user.client_left("the client reset the connection", "error")
            return True

    def touch(self) -> None:
        """Something happened, on either side."""
        if self._idle is not None:
            self._idle.touched = self._deadlines.now

    def wait_for_bytes(self, idle_seconds: float | None) -> None:
        """Tell the user when nothing happens for `idle_seconds`; None is the usual time."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self._deadlines.start(idle_seconds or self._settings.idle_timeout_seconds, self._user.client_idle)

    def watch_head(self, has_begun: bool) -> None:  # noqa: FBT001  (what it is about)
        """Give a head that has begun its time; without one, stop."""
        if not has_begun:
            if self._head is not None:
                self._head.cancel()
                self._head = None
        elif self._head is None:
            self._head = self._deadlines.start(self._settings.head_timeout_seconds, self._head_too_slow)

    def end(self, *, linger: bool = False, ragged: bool = False) -> None:
        """Read no more, and close when all that was written has left.

        Args:
            linger: Whether it may still be sending: closing with its bytes unread would reset what it is to read.
            ragged: Whether the end is to look like a cut, because it is one.
        """
        if self.is_ending:
            return
        self.is_ending = True
        self._lingers = linger
        self._is_ragged = ragged
        self._stream.pause()
        if not self._stream.has_unsent:
            self._say_goodbye()

    def close(self, *, reset: bool = False) -> None:
        """Close at once. May be called again."""
        self.is_ending = True
        for deadline in (self._idle, self._head):
            if deadline is not None:
                deadline.cancel()
        self._stream.close(reset=reset)

    def _too_slow(self) -> None:
        self._secured(TimeoutError("the client did not complete TLS in time"))

    def _head_too_slow(self) -> None:
        self._head = None
        self._user.head_too_slow()

    def _say_goodbye(self) -> None:
        if not self._is_ragged:
            self._stream.finish()
        if not self._lingers:
            self._user.close("eof")
            return
        self._is_lingering = True
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self._deadlines.start(LINGER_SECONDS, lambda: self._user.close("eof"))
        self._stream.resume()

    # See `stream.Owner`.

    def _secured(self, error: OSError | None) -> None:
        """The handshake is over."""
        if error is None:
            self.start()
            return
        detail = str(error)[:_MAX_DETAIL_CHARACTERS]
        self._reporter.tell(
            ClientTlsFailed(at=self._reporter.now(), host=self._tls_host, reason=client_failure(error), detail=detail)
        )
        self._user.close("error")

    def readable(self, stream: Stream) -> None:
        """Something came."""
        if self._is_lingering:
            if stream.discard():
                self._user.close("eof")
            return
        try:
            data = stream.read()
        except OSError:
            self._user.client_left("the client reset the connection", "error")
            return
        if data is None:
            return
        self.touch()
        if data:
            self._user.from_client(data)
        else:
            self._user.client_left("the client closed the connection", "eof")

    def drained(self, stream: Stream) -> None:  # noqa: ARG002
        """All left."""
        self.touch()
        if self.is_ending:
            self._say_goodbye()
        else:
            self._user.client_drained()

    def unwritable(self, stream: Stream, error: OSError) -> None:  # noqa: ARG002
        """It takes nothing any more."""
        self._user.client_left("the client reset the connection", "error")

    def broke(self, stream: Stream) -> None:  # noqa: ARG002
        """The user raised."""
        self._user.close("error")
