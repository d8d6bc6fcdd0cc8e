"""Listening sockets: those of the configured addresses, or those a service manager opened and passed on.

A service manager (systemd's socket units) passes sockets by number, with `LISTEN_PID` and `LISTEN_FDS`, and their names in
`LISTEN_FDNAMES`: `tls` listens for clients that speak TLS, `gateway` for those that are given a base URL, `admin` for the admin server,
any other name for the proxy. Sockets of a kind stand
in the place of all configured addresses of that kind. They live on when the daemon stops, so that clients wait for the next one.

Source: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple

from aiproxyd.exceptions import AiproxydError

BACKLOG = 4096

# Workers of a control process that died hold its ports until they notice, a few milliseconds later.
BIND_RETRY_SECONDS = 5.0

# The first number that a service manager gives.
_FIRST_DESCRIPTOR = 3


class Listeners(NamedTuple):
    """Every socket that listens, non-blocking."""

    proxy: list[socket.socket]
    tls: list[socket.socket]
    """For clients that speak TLS with the proxy itself."""
    gateway: list[socket.socket]
    """For clients that are given a base URL."""
    admin: list[socket.socket]

    @property
    def of_workers(self) -> list[socket.socket]:
        """Those that workers inherit."""
        return [*self.proxy, *self.tls, *self.gateway]

    def close(self) -> None:
        """Close all of them. May be called again."""
        for socket_ in (*self.of_workers, *self.admin):
            socket_.close()


async def open_listeners(
    *,
    proxy: Sequence[str],
    tls: Sequence[str],
    gateway: Sequence[str] = (),
    admin: str,
    environ: MutableMapping[str, str],
    is_held: Callable[[], bool],
) -> Listeners:
    """Return the sockets of a service manager, and where it passed none of a kind those of the addresses.

    Args:
        proxy: Addresses of the proxy.
        tls: Addresses of the proxy where TLS is spoken.
        gateway: Addresses for clients that are given a base URL.
        admin: Address of the admin server.
        environ: The environment; what a service manager says in it is taken out.
        is_held: Whether somebody who is about to leave may hold an address.

    Raises:
        AiproxydError: An address cannot be listened on, or what was passed is no TCP listener. Nothing is left open.
    """
    listeners = inherited(environ)
    kinds = ((proxy, listeners.proxy), (tls, listeners.tls), (gateway, listeners.gateway), ((admin,), listeners.admin))
    try:
        for addresses, sockets in kinds:
            if not sockets:
                for address in addresses:
                    sockets.append(await _listen_after_others(address, is_held))
                    if sockets is not listeners.admin:
                        _defer(sockets[-1])
    except BaseException:
        listeners.close()
        raise
    return listeners


def inherited(environ: MutableMapping[str, str]) -> Listeners:
    """Return the sockets that a service manager passed to this process, and take what it says out of `environ`.

    Raises:
        AiproxydError: One of them is no TCP listener.
    """
    listeners = Listeners([], [], [], [])
    of_process, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if of_process != str(os.getpid()) or not count.isdigit():
        return listeners
    for number in range(int(count)):
        name = names[number] if number < len(names) else ""
        try:
            socket_ = socket.socket(fileno=_FIRST_DESCRIPTOR + number)
            is_listener = socket_.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        except OSError as exc:
            listeners.close()
            raise AiproxydError(f"the service manager passed no socket as number {number + 1}: {exc.strerror}") from exc
        {"tls": listeners.tls, "gateway": listeners.gateway, "admin": listeners.admin}.get(name, listeners.proxy).append(
            socket_
        )
        if not is_listener or socket_.family not in {socket.AF_INET, socket.AF_INET6} or socket_.type != socket.SOCK_STREAM:
            listeners.close()
            raise AiproxydError(f"socket {number + 1} of the service manager ({name!r}) is no TCP listener")
        socket_.set_inheritable(False)
        socket_.setblocking(False)
    if len(listeners.admin) > 1:
        listeners.close()
        raise AiproxydError("the service manager passed more than one socket named 'admin'")
    return listeners


def listen(address: str) -> socket.socket:
    """Return a socket that listens on `ADDRESS:PORT`.

    Raises:
        AiproxydError: It cannot.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    socket_ = socket.socket(family, socket.SOCK_STREAM)
    try:
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            socket_.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        socket_.bind((host or "::", int(port)))
        socket_.listen(BACKLOG)
    except OSError as exc:
        socket_.close()
        raise AiproxydError(f"cannot listen on {address}: {exc.strerror}") from exc
    socket_.setblocking(False)
    return socket_


def _defer(listener: socket.socket) -> None:
    """Have the kernel hand over connections with the first bytes that arrive on them, and silent ones a second later.

    Whoever accepts one finds its request there, where else they would be woken twice. A service manager's listeners are left as they
    are: it has a setting of its own for it (`DeferAcceptSec=`).
    """
    with contextlib.suppress(OSError):  # a system that does not know it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)


def name_of(socket_: socket.socket) -> str:
    """Return `ADDRESS:PORT` of a socket that listens, with the port that was assigned for 0."""
    host, port = socket_.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _listen_after_others(address: str, is_held: Callable[[], bool]) -> socket.socket:
    deadline = time.monotonic() + BIND_RETRY_SECONDS
    while True:
        try:
            return listen(address)
        except AiproxydError:
            if time.monotonic() > deadline or not is_held():
                raise
        await asyncio.sleep(0.05)
