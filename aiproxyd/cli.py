"""The command line: which commands there are, and how each failure is told.

Errors go to standard error, in one sentence. The exit status is 2 for usage and configuration, 1 for the rest.
"""

import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from aiproxyd.commands import ca, check, env, interceptions, prices, providers, prune, run, sessions, tail, usage, user, version
from aiproxyd.commands import exec as exec_command
from aiproxyd.exceptions import AiproxydError, ConfigError

USAGE_STATUS = 2
FAILURE_STATUS = 1

_NUMBERS = {"integer": "a whole number", "number": "a number"}
_NO_NUMBER = re.compile(r": Input should be a valid (integer|number), unable to parse string as an? (?:integer|number)\Z")

app = typer.Typer(
    name="aiproxyd",
    help="An egress proxy for AI traffic: every request attributed, measured and recorded.",
    epilog="Start with `aiproxyd run`; it prints the lines to paste into another shell.",
    # Plain help: it starts in half the time, and reads the same in a pipe.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, *, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if show_version:
        version.version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(run.run)
app.command()(check.check)
app.command()(env.env)
app.command("exec", context_settings=exec_command.CONTEXT_SETTINGS)(exec_command.exec_)
app.add_typer(user.app, name="user")
app.add_typer(ca.app, name="ca")
app.add_typer(interceptions.app, name="interceptions")
app.add_typer(sessions.app, name="sessions")
app.command()(usage.usage)
app.command()(tail.tail)
app.command()(prune.prune)
app.add_typer(prices.app, name="prices")
app.add_typer(providers.app, name="providers")
app.command()(version.version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, those of the process when absent, and return its exit status."""
    command = typer.main.get_command(app)
    try:
        status = command.main(args=None if arguments is None else list(arguments), prog_name="aiproxyd", standalone_mode=False)
    except typer.TyperException as exc:
        return _fail(_usage_sentence(exc), exc.exit_code)
    except typer.Abort:
        return FAILURE_STATUS
    except ConfigError as exc:
        return _fail(str(exc), USAGE_STATUS)
    except AiproxydError as exc:
        return _fail(str(exc), FAILURE_STATUS)
    except OSError as exc:
        what = f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror or str(exc)
        return _fail(what, FAILURE_STATUS)
    return status if isinstance(status, int) else 0


def _usage_sentence(error: typer.TyperException) -> str:
    # Pydantic's way to begin what a validator says, and to end what is no number.
    sentence = " ".join(error.format_message().split()).replace(": Value error, ", ": ", 1)
    sentence = _NO_NUMBER.sub(lambda match: f": this takes {_NUMBERS[match[1]]}", sentence)
    context = getattr(error, "ctx", None)
    if context is None:
        return sentence
    return f"{sentence.rstrip('.')}; see {context.command_path} --help"


def _fail(sentence: str, status: int) -> int:
    sys.stderr.write(f"aiproxyd: {sentence}\n")
    return status
