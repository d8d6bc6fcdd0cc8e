"""A courier's connection to where a request goes: TLS if any, a request written, its answer followed. `legs` keeps those of a client."""

import asyncio
import socket
import ssl
from typing import Protocol

import msgspec

from aiproxyd.mitm.stream import Stream
from aiproxyd.mitm.tls import UpstreamTls, upstream_failure
from aiproxyd.model.authority import Authority
from aiproxyd.model.head import RequestHead
from aiproxyd.wire.http1 import ResponseFollower, ResponsePiece

# Of an OpenSSL message that goes into an observation.
_MAX_DETAIL_CHARACTERS = 200


class Destination(msgspec.Struct, frozen=True):
    """Where a request goes."""

    authority: Authority
    is_tls: bool = True
    is_exempt: bool = False
    """Whether an operator named it, so that it may have a private address."""


class LegFailed(Exception):
    """No usable connection came about."""

    def __init__(self, sentence: str, *, status_code: int = 502, tls_reason: str = "", detail: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        """For the client; it holds nothing about the inside."""
        self.status_code = status_code
        self.tls_reason = tls_reason
        """The bounded word of a handshake that failed; empty when it was not TLS."""
        self.detail = detail


class LegUser(Protocol):
    """Who a leg tells of what happens to it, in callbacks of the loop."""

    def answered(self, leg: "Leg", pieces: list[ResponsePiece]) -> None:
        """Bytes came, of the answer or behind it."""

    def leg_ended(self, leg: "Leg", error: OSError | None) -> None:
        """It will bring nothing more: an orderly end, or an error."""

    def leg_drained(self, leg: "Leg") -> None:
        """All that was written has left."""

    def leg_failed(self, leg: "Leg") -> None:
        """A method of the user raised, which is a bug: close what hangs on the leg."""


class Leg:
    """One connection. Made over a socket that is connected; `secure` comes before anything is written."""

    def __init__(
        self, connection: socket.socket, destination: Destination, user: LegUser, *, tls: UpstreamTls, max_head_bytes: int
    ) -> None:
        """Take over a connected, non-blocking socket."""
        self.destination = destination
        self.is_used = False
        """Whether it has stood idle, so that the other side may have closed it meanwhile."""
        self.has_said = False
        """Whether a byte of an answer to the last request came."""
        self._loop = asyncio.get_running_loop()
        self._stream = Stream(connection, self, self._loop)
        self._user = user
        self._tls = tls
        self._secured: asyncio.Future[OSError | None] | None = None
        self._is_session_kept = not destination.is_tls
        self._is_deaf = False
        """Whether the other side takes no bytes any more; it may have said something before."""
        self._responses = ResponseFollower(max_head_bytes=max_head_bytes)

    async def secure(self, timeout_seconds: float) -> None:
        """Complete the TLS handshake where there is one. On failure the leg is closed.

        Raises:
            LegFailed: The other side is not who it should be, or did not answer in time.
        """
        if not self.destination.is_tls:
            return
        authority = self.destination.authority
        self._secured = self._loop.create_future()
        session = self._tls.session(authority)
        self._stream.secure(self._tls.context, self._tls_ended, server_hostname=authority.host, session=session)
        try:
            async with asyncio.timeout(timeout_seconds):
                error = await self._secured
        except TimeoutError:
            error = TimeoutError("the provider did not complete TLS in time")
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()
            reason, sentence = upstream_failure(error)
            raise LegFailed(
                f"{authority.host} cannot be reached safely: {sentence}",
                tls_reason=reason,
                detail=str(error)[:_MAX_DETAIL_CHARACTERS],
            )

    @property
    def is_closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._stream.is_closed

    @property
    def is_ragged(self) -> bool:
        """Whether TLS ended as a cut connection does."""
        return self._stream.is_ragged

    @property
    def has_unsent(self) -> bool:
        """Whether the other side has not taken all that was written."""
        return self._stream.has_unsent

    @property
    def is_between(self) -> bool:
        """Whether a request may be written: the last answer is whole, and nothing came after it."""
        return self._responses.is_idle and not self._is_deaf and not self.is_closed

    def begin(self, head: RequestHead) -> None:
        """Expect the answer to a request that is about to be written."""
        self.has_said = False
        self._responses.expect(head)
        self._stream.resume()

    def write(self, data: bytes) -> bool:
        """Send `data`; return whether all of it left. What cannot be sent any more is dropped: the leg's end follows."""
        if self._is_deaf:
            return True
        try:
            return self._stream.write(data)
        except OSError as exc:
            self.unwritable(self._stream, exc)
            return True

    def pause(self) -> None:
        """Leave what arrives in the kernel."""
        self._stream.pause()

    def resume(self) -> None:
        """Read on."""
        self._stream.resume()

    def ends_answer(self) -> bool:
        """Return whether the end of the connection is the regular end of the answer."""
        return bool(self._responses.close())

    def stop_following(self) -> None:
        """Take what comes for bytes, from here on."""
        self._responses.stop_following()

    def end(self) -> None:
        """Close in order."""
        if not self.is_closed and not self.has_unsent:
            self._stream.finish()
        self.close()

    def close(self, *, reset: bool = False) -> None:
        """Close at once. May be called again."""
        self._stream.close(reset=reset)
        if self._secured is not None and not self._secured.done():
            self._secured.cancel()

    # See `stream.Owner`.

    def readable(self, stream: Stream) -> None:
        """Something came."""
        try:
            data = stream.read()
        except OSError as exc:
            stream.pause()
            stream.is_ragged = True
            self._user.leg_ended(self, exc)
            return
        if data is None:
            return
        if not data:
            stream.pause()
            self._user.leg_ended(self, None)
            return
        self.has_said = True
        if not self._is_session_kept:
            self._is_session_kept = True
            if isinstance(stream.socket, ssl.SSLSocket):
                self._tls.remember(self.destination.authority, stream.socket)
        self._user.answered(self, self._responses.feed(data))

    def drained(self, stream: Stream) -> None:  # noqa: ARG002
        """All left."""
        self._user.leg_drained(self)

    def unwritable(self, stream: Stream, error: OSError) -> None:  # noqa: ARG002
        """Nothing can be written any more. An early answer may be waiting behind the reset: reading brings it, and then the error."""
        self._is_deaf = True
        stream.resume()
        self._loop.call_soon(stream.on_readable)

    def _tls_ended(self, error: OSError | None) -> None:
        """The handshake is over."""
        if self._secured is not None and not self._secured.done():
            self._secured.set_result(error)

    def broke(self, stream: Stream) -> None:  # noqa: ARG002
        """The user raised."""
        self._user.leg_failed(self)
