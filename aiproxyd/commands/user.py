"""`aiproxyd user`: the users of the store and their tokens."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.table import Output, OutputOption, print_rows

if TYPE_CHECKING:
    from aiproxyd.config.schema import Config
    from aiproxyd.storage.store import Store
    from aiproxyd.storage.users import StoredUser

app = typer.Typer(help="The users of the proxy and their tokens.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name, as records show it.", show_default=False)]


@app.command()
def add(
    name: Name,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", "-g", metavar="GROUP", help="A group; may be given more than once.", show_default=False),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Add a user and print the token, this once.

    Only the token's SHA-256 is kept. A user who was revoked gets a new token under the same name.

    For example:

      aiproxyd user add alice

      aiproxyd user add ci --group automation --group nightly
    """
    import shlex

    from aiproxyd.commands.env import proxy_url
    from aiproxyd.exceptions import AiproxydError, ConfigError

    settings = read_configuration(config)
    if not name.isprintable():
        raise AiproxydError("a user's name has no control characters and no line breaks")
    if any(user.name == name for user in settings.auth.users):
        raise ConfigError(f"auth.users names {name!r} already; give the user a token there")
    token = _with_store(settings, lambda store: store.add_user(name, group or ()), create=True)
    typer.echo(f"token of {name}: {token}\n")
    typer.echo("It is not shown again. To use it:\n")
    called = Path(sys.argv[0])
    command = shlex.quote(str(called.absolute())) if called.name == "aiproxyd" else "aiproxyd"
    options = f"--user {shlex.quote(name)}" + (f" --config {shlex.quote(str(config.absolute()))}" if config else "")
    typer.echo(f"  AIPROXYD_TOKEN={token} {command} exec {options} -- COMMAND")
    typer.echo(f'  eval "$(AIPROXYD_TOKEN={token} {command} env {options})"')
    typer.echo(f"  HTTPS_PROXY={proxy_url(settings, name, token)}")


@app.command("list")
def list_(output: OutputOption = Output.TABLE, config: ConfigOption = None) -> None:
    """List the users of the store and of the configuration.

    For example:

      aiproxyd user list

      aiproxyd user list --output json
    """
    from aiproxyd.model.principal import id_of_name

    settings = read_configuration(config)
    rows: list[dict[str, object]] = [
        {
            "name": user.name,
            "groups": user.groups,
            "status": "active" if user.revoked_at is None else "revoked",
            "created_at": user.created_at.isoformat(timespec="seconds"),
            "revoked_at": user.revoked_at.isoformat(timespec="seconds") if user.revoked_at is not None else None,
            "from": "store",
            "id": user.id,
        }
        for user in stored_users(settings)
    ]
    rows += [
        {
            "name": user.name,
            "groups": user.groups,
            "status": "active",
            "created_at": None,
            "revoked_at": None,
            "from": "configuration",
            "id": id_of_name(user.name),
        }
        for user in settings.auth.users
    ]
    print_rows(rows, ["name", "groups", "status", "created_at", "from"], output=output, empty="there are no users; add one")


@app.command()
def revoke(name: Name, config: ConfigOption = None) -> None:
    """Make a user's token worthless.

    A running daemon follows within five seconds, and closes the connections that the user has. The user's records stay.

    For example:

      aiproxyd user revoke alice
    """
    from aiproxyd.exceptions import AiproxydError, ConfigError
    from aiproxyd.identity.users import forget_first_user_token

    settings = read_configuration(config)

    async def work(store: "Store") -> bool:
        done = await store.revoke_user(name)
        await forget_first_user_token(store, settings)
        return done

    if _with_store(settings, work, create=False):
        typer.echo(f"the token of {name} is revoked")
    elif any(user.name == name for user in settings.auth.users):
        raise ConfigError(f"{name!r} is a user of the configuration; remove auth.users' entry and reload")
    else:
        raise AiproxydError(f"no user {name!r} has a token")


def stored_users(settings: "Config") -> "list[StoredUser]":
    """Return the users of the store who have or had a token; none when there is no store yet.

    Raises:
        AiproxydError: It cannot be read.
    """
    if settings.store.url is None and not (settings.data_dir / "aiproxyd.sqlite3").exists():
        return []  # not made yet
    return _with_store(settings, lambda store: store.list_users(), create=False)


def _with_store[Result](settings: "Config", work: Callable[["Store"], Awaitable[Result]], *, create: bool) -> Result:
    from aiproxyd.storage.store import Store

    async def opened() -> Result:
        store = await Store.open(settings.store_url, create=create)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())
