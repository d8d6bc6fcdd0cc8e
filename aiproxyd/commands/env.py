"""`aiproxyd env`: the variables that bring a tool to the proxy and let it trust the CA. `exec` uses the same."""

import enum
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.running import running_daemon

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config

# Some tools send what they say to their own helpers on this machine through the proxy otherwise (Cline's hub).
NO_PROXY = "localhost,127.0.0.1,::1"

UserOption = Annotated[
    str | None, typer.Option("--user", "-u", metavar="NAME", help="The user to be; its token is needed.", show_default=False)
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="The user's token; AIPROXYD_TOKEN when absent, else that of the first user, where this machine has it.",
        show_default=False,
    ),
]


class Shell(enum.StrEnum):
    """Whose syntax is printed."""

    BASH = "bash"
    ZSH = "zsh"
    SH = "sh"
    FISH = "fish"
    POWERSHELL = "powershell"
    DOTENV = "dotenv"
    JSON = "json"


def env(
    user: UserOption = None,
    shell: Annotated[Shell | None, typer.Option(help="Syntax; that of $SHELL when absent.", show_default=False)] = None,
    token: TokenOption = None,
    config: ConfigOption = None,
) -> None:
    """Print the variables that bring tools to the proxy.

    They name the proxy with credentials, and the files that let a tool trust its CA. The output holds the token.

    For example:

      eval "$(aiproxyd env)"

      aiproxyd env --shell fish | source

      aiproxyd env --shell powershell | Out-String | Invoke-Expression

    In a container, with the files that the variables name:

    \b
      aiproxyd env --shell dotenv > proxy.env
      eval "$(aiproxyd env --shell sh)"
      docker run --network host --env-file proxy.env \\
        -v "$SSL_CERT_FILE:$SSL_CERT_FILE:ro" \\
        -v "$NODE_EXTRA_CA_CERTS:$NODE_EXTRA_CA_CERTS:ro" IMAGE
    """  # noqa: D301  (a raw text has no backspace, by which click is told to leave lines alone)
    variables = client_variables(read_configuration(config), user=user, token=token, environ=os.environ)
    typer.echo(rendered(variables, shell or shell_of(os.environ)))


def client_variables(settings: "Config", *, user: str | None, token: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a tool, in the order in which they are printed.

    Args:
        settings: Where the proxy is, and whose CA.
        user: Who the tool acts as; the login name when absent.
        token: The user's token; when absent, what `environ` or the first start left.
        environ: The environment variables.

    Raises:
        AiproxydError: No token is known.
        CertificateError: There is no CA to trust.
    """
    from aiproxyd.ca.bundle import client_files

    proxy = proxy_url(settings, *_credentials(settings, user, token, environ))
    files = client_files(settings)
    certificates, bundle = (str(file.absolute()) for file in files)
    return {
        "HTTPS_PROXY": proxy,
        "HTTP_PROXY": proxy,
        "https_proxy": proxy,
        "http_proxy": proxy,
        "NO_PROXY": NO_PROXY,
        "no_proxy": NO_PROXY,
        # Added to what a tool trusts already.
        "NODE_EXTRA_CA_CERTS": certificates,
        "CODEX_CA_CERTIFICATE": certificates,
        # In place of what a tool trusts already.
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "AWS_CA_BUNDLE": bundle,
        "GIT_SSL_CAINFO": bundle,
        # Node's own fetch, and with it every Node SDK, ignores the others without it (Node 22.21+).
        "NODE_USE_ENV_PROXY": "1",
    }


def proxy_url(settings: "Config", user: str, token: str) -> str:
    """Return the proxy's URL with credentials, percent-encoded; without any when there is no token."""
    from urllib.parse import quote

    credentials = f"{quote(user, safe='')}:{quote(token, safe='')}@" if token else ""
    scheme = "http" if _listen(settings) else "https"
    return f"{scheme}://{credentials}{proxy_authority(settings)}"


def proxy_authority(settings: "Config") -> str:
    """Return the first address of the proxy as a client on this machine names it."""
    address = (_listen(settings) or _listen_tls(settings))[0]
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    # A listener on every address answers on the loopback one.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(settings: "Config") -> tuple[str, ...]:
    daemon = running_daemon(settings)
    return daemon.listen if daemon is not None else settings.listen


def _listen_tls(settings: "Config") -> tuple[str, ...]:
    daemon = running_daemon(settings)
    return daemon.listen_tls if daemon is not None else settings.listen_tls.listen


def _credentials(settings: "Config", user: str | None, token: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the user and the token; the token is empty where the proxy asks nobody."""
    from aiproxyd.config.schema import AuthMode
    from aiproxyd.exceptions import AiproxydError
    from aiproxyd.identity.users import FIRST_USER_TOKEN_NAME, first_user_token, login_name

    token = token or environ.get("AIPROXYD_TOKEN")
    if not token and settings.auth.mode is AuthMode.OFF:
        return "", ""
    if not token and user in {None, login_name()}:
        token = first_user_token(settings.data_dir)
        if not token:
            file = settings.data_dir / FIRST_USER_TOKEN_NAME
            raise AiproxydError(
                f"no token is known: {file} cannot be read; the first `aiproxyd run` makes it, and `aiproxyd user add NAME` makes "
                "a token that --token or AIPROXYD_TOKEN takes"
            )
    if not token:
        raise AiproxydError(_way_to_a_token(settings, user or login_name()))
    return user or login_name(), token


def _way_to_a_token(settings: "Config", user: str) -> str:
    """Return what somebody can do whose token is not known here."""
    import shlex

    from aiproxyd.commands.user import stored_users
    from aiproxyd.exceptions import AiproxydError

    give, word = "give it with --token or AIPROXYD_TOKEN", shlex.quote(user)
    unkept = f"the token of {user!r} is not kept anywhere; {give}"
    if any(entry.name == user for entry in settings.auth.users):
        return unkept
    try:
        stored = {each.name: each for each in stored_users(settings)}
    except AiproxydError:
        return unkept  # nobody can say who there is
    known = stored.get(user)
    if known is not None and known.revoked_at is None:
        return f"{unkept}, or make another one: `aiproxyd user revoke {word}`, then `aiproxyd user add {word}`"
    if known is not None:
        return f"the token of {user!r} is revoked; `aiproxyd user add {word}` makes another one"
    if settings.auth.coder.url is not None or settings.auth.jwt.issuer is not None:
        return unkept  # a user of elsewhere
    return f"there is no user {user!r}; `aiproxyd user add {word}` makes one"


def shell_of(environ: Mapping[str, str]) -> Shell:
    """Return the shell that `SHELL` names, bash's syntax for any other."""
    name = Path(environ.get("SHELL", "")).name
    if name in {"pwsh", "powershell"}:
        return Shell.POWERSHELL
    return Shell(name) if name in {"zsh", "fish", "sh"} else Shell.BASH


def rendered(variables: Mapping[str, str], shell: Shell) -> str:
    """Return `variables` in the syntax of `shell`.

    Raises:
        AiproxydError: `dotenv` cannot say a value with a line break.
    """
    if shell is Shell.JSON:
        import json

        return json.dumps(variables, indent=2)
    line = _SYNTAX.get(shell, _posix)
    return "\n".join(line(name, value) for name, value in variables.items())


def _posix(name: str, value: str) -> str:
    import shlex

    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{escaped}'"


def _powershell(name: str, value: str) -> str:
    escaped = value.replace("'", "''")
    return f"$env:{name} = '{escaped}'"


def _dotenv(name: str, value: str) -> str:
    if "\n" in value:
        from aiproxyd.exceptions import AiproxydError

        raise AiproxydError(f"{name} has a line break, which a dotenv file cannot hold")
    return f"{name}={value}"


_SYNTAX: Mapping[Shell, Callable[[str, str], str]] = {
    Shell.FISH: _fish,
    Shell.POWERSHELL: _powershell,
    Shell.DOTENV: _dotenv,
}
