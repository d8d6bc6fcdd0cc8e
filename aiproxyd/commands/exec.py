"""`aiproxyd exec`: runs a tool with the variables of `aiproxyd env`, in place of this process."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.env import TokenOption, UserOption, client_variables, proxy_authority

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config

# What shells, env and nice return.
NOT_EXECUTABLE_STATUS = 126
NOT_FOUND_STATUS = 127

# The proxy is on this machine or near it; a tool that waits for one that is away says so much later, and badly.
_PROBE_TIMEOUT_SECONDS = 3.0

# Options after the command are the command's, with or without `--`.
CONTEXT_SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def exec_(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGUMENT]…", help="The tool and its arguments.", show_default=False)
    ],
    user: UserOption = None,
    token: TokenOption = None,
    config: ConfigOption = None,
) -> int:
    """Run a tool through the proxy.

    The tool takes the place of this process, so its exit status and signals are its own: 127 when there is no such command, 126
    when it cannot be run.

    For example:

      aiproxyd exec -- claude

      aiproxyd exec --user ci -- python agent.py --verbose
    """
    settings = read_configuration(config)
    environ = {**os.environ, **client_variables(settings, user=user, token=token, environ=os.environ)}
    _require_proxy(settings)
    return _replace_process(command, environ)


def _require_proxy(settings: "Config") -> None:
    import socket

    from aiproxyd.exceptions import AiproxydError

    authority = proxy_authority(settings)
    host, _, port = authority.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_TIMEOUT_SECONDS).close()
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise AiproxydError(f"no proxy answers at {authority} ({reason}); start it with `aiproxyd run`") from exc


def _replace_process(command: list[str], environ: dict[str, str]) -> int:
    """Become `command`; return only when that is not possible, with the status that says so."""
    import signal

    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these two; a tool that inherits that does not end when its reader leaves.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606  (running what the user names is the purpose)
    except (FileNotFoundError, NotADirectoryError):
        sys.stderr.write(f"aiproxyd: there is no command {command[0]!r}\n")
        return NOT_FOUND_STATUS
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        sys.stderr.write(f"aiproxyd: {command[0]!r} cannot be run: {reason}\n")
        return NOT_EXECUTABLE_STATUS
