"""What a running daemon says of itself: `run.json` in its data folder, as long as it lives."""

import contextlib
import json
import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config


class Running(msgspec.Struct, frozen=True):
    """A daemon that lives."""

    pid: int
    listen: tuple[str, ...]
    """Addresses of the proxy with the ports it really has."""
    admin: str
    listen_tls: tuple[str, ...] = ()
    """The same of those that speak TLS."""
    listen_gateway: tuple[str, ...] = ()
    """The same of the reverse listener."""


def running_daemon(settings: "Config") -> Running | None:
    """Return the daemon that uses the data folder of `settings`, or None when none can be seen."""
    with contextlib.suppress(OSError, ValueError, msgspec.ValidationError):
        described = msgspec.convert(json.loads((settings.data_dir / "run.json").read_bytes()), Running)
        # A daemon that was killed leaves the file behind.
        if (described.listen or described.listen_tls) and _is_alive(described.pid):
            return described
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # somebody else's
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0
