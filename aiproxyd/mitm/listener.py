"""A listening socket of a worker, which may share it with others, and the loop that accepts on it.

Not the place where sockets are bound (`listeners`, in control), or where it is known who is connected (`front`).
"""

import asyncio
import errno
import logging
import select
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

# Connections taken at one wake-up; what is left of a longer queue is for the other workers, or for the next turn of the loop.
_ACCEPTS_PER_WAKE_UP = 32

# How long accepting rests when there are no descriptors left, in seconds.
_ACCEPT_PAUSE_SECONDS = 1.0

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

type Admit = Callable[[socket.socket, tuple[str, int]], None]
"""Takes over a connection, non-blocking, with the address and port of its client."""


class Listener:
    """Accepts while it is started."""

    def __init__(self, listening: socket.socket, admit: Admit, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare.

        Args:
            listening: Bound and listening; it is made non-blocking, and never closed here.
            admit: Is given each connection.
            loop: That calls.
        """
        self._listening = listening
        self._admit = admit
        self._loop = loop
        self._is_stopped = True
        # An `accept` that finds nobody raises, which costs ten times as much as to ask.
        self._queue = select.poll()
        self._queue.register(listening, select.POLLIN)

    def start(self) -> None:
        """Begin to accept."""
        self._is_stopped = False
        self._listening.setblocking(False)
        self._watch()

    def stop(self) -> None:
        """Accept no more."""
        self._is_stopped = True
        self._loop.remove_reader(self._listening.fileno())

    def _watch(self) -> None:
        if not self._is_stopped:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE_UP):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was faster, or the client left
            except OSError as exc:
                if exc.errno in _NO_ROOM:
                    # The listener stays readable, so the loop would spin.
                    log.warning("accepting rests for a second: %s", exc.strerror)
                    self._loop.remove_reader(self._listening.fileno())
                    self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._watch)
                    return
                log.warning("a connection could not be accepted: %s", exc.strerror)
                return
            connection.setblocking(False)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass  # reset already: reading says so
            self._admit(connection, (str(address[0]), int(address[1])))
            if not self._queue.poll(0):
                return
