"""Tells the service manager how the daemon is (systemd's `Type=notify` and `notify-reload`). Without one it says nothing.

Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping

import structlog

log = structlog.get_logger("aiproxyd.service_manager")


class ServiceManager:
    """Who is told, if anybody is."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A name with @ before it is not in the file system.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Say that clients are served."""
        self._tell(f"READY=1\nSTATUS={status}")

    @contextlib.contextmanager
    def reloading(self, status: str) -> Iterator[None]:
        """Say that a reload has begun, and at the end that clients are served, by whatever configuration."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.ready(status)

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1\nSTATUS=finishing streams")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
                teller.connect(self._address)
                teller.sendall(message.encode())
        except OSError as exc:
            log.warning("the service manager cannot be told", error=exc.strerror or str(exc))
