"""`aiproxyd run`: the daemon, in the foreground, and the block it prints when it stands."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiproxyd.commands.configuration import ConfigOption

if TYPE_CHECKING:
    from aiproxyd.control import Control


def run(
    config: ConfigOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; 0 is one a core.", min=0, max=256, show_default=False)
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS:PORT", help="Where the proxy listens; may be given more than once.", show_default=False),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the CA, journal and store.", show_default=False)
    ] = None,
) -> None:
    """Start the proxy and the admin server.

    Ctrl-C or SIGTERM lets streams finish, a second one closes at once; SIGHUP reads the configuration again.

    For example:

      aiproxyd run

      aiproxyd run --config /etc/aiproxyd/config.yaml --workers 4

      AIPROXYD_LOGGING__FORMAT=json aiproxyd run
    """
    import uvloop

    from aiproxyd.config.loader import load
    from aiproxyd.control import Control
    from aiproxyd.telemetry.logs import configure_logging

    # Options of the command line are the same overrides as those of the environment, so that a reload keeps them.
    environ = dict(os.environ)
    given: dict[str, str] = {}
    if workers is not None:
        environ["AIPROXYD_WORKERS"] = str(workers)
    if listen:
        environ["AIPROXYD_LISTEN"] = json.dumps(listen)
        given["AIPROXYD_LISTEN"] = "--listen"
    if data_dir is not None:
        environ["AIPROXYD_DATA_DIR"] = str(data_dir.absolute())
    settings = load(config, environ, options=given)
    configure_logging(settings.logging.format, settings.logging.level)
    # What `env` in another shell needs to be told to find the same state.
    pointer = f" --config {shlex.quote(str(config.absolute()))}" if config else ""
    prefix = f"AIPROXYD_DATA_DIR={shlex.quote(environ['AIPROXYD_DATA_DIR'])} " if data_dir else ""

    def announce(control: "Control") -> None:
        _announce(control, prefix, pointer)

    uvloop.run(Control(settings, config_path=config, environ=environ).run(announce))


def _announce(control: "Control", prefix: str, pointer: str) -> None:
    """Print where everything is and the lines to paste.

    Args:
        control: What stands.
        prefix: Variables for the commands in the lines.
        pointer: Options for the commands in the lines.
    """
    from aiproxyd import __version__
    from aiproxyd.commands.env import Shell, client_variables, rendered, shell_of

    settings = control.config
    user, token = control.first_user
    command = Path(sys.argv[0]).absolute() if Path(sys.argv[0]).name == "aiproxyd" else f"{sys.executable} -m aiproxyd"
    facts = {
        "proxy": ", ".join(
            (*(f"http://{address}" for address in control.listen), *(f"https://{address}" for address in control.listen_tls))
        ),
        "gateway": ", ".join(f"http://{address}/PROVIDER" for address in control.listen_gateway),
        "admin": f"http://{control.admin_listen}  (/metrics, /readyz, /ca-cert.pem)",
        "CA": f"{control.ca_file}",
        "state": f"{settings.data_dir}",
        "workers": f"{control.worker_count}",
        "user": user,
    }
    lines = [f"aiproxyd {__version__} is running", ""]
    lines += [f"  {name:<8} {value}" for name, value in facts.items() if value]
    if token or settings.auth.mode.value == "off":
        lines += ["", "Paste into the shell whose tools are to use it:", "", f'  eval "$({prefix}{command} env{pointer})"']
        if sys.stdout.isatty():
            # Only to a person: these lines hold the token, and what is no terminal may be kept.
            shell = shell_of(os.environ)
            variables = client_variables(settings, user=None, token=token, environ=os.environ)
            lines += ["", f"which sets ({(shell or Shell.BASH).value}):", ""]
            lines += [f"  {line}" for line in rendered(variables, shell).splitlines()]
    else:
        lines += ["", f"Make a user with `{prefix}{command} user add NAME{pointer}`; it prints the lines to paste."]
    print("\n".join(lines), flush=True)
