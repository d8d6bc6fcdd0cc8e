"""The options of every command that reads records: which interceptions, and from where."""

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aiproxyd.storage.selection import Selection


def time_of(value: str) -> datetime:
    """Return an RFC 3339 time in UTC.

    Raises:
        BadParameter: It is none.
    """
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    message = f"{value!r} is not an RFC 3339 time such as 2026-01-31T08:00:00Z"
    raise typer.BadParameter(message)


def limit_of(value: int) -> int:
    """Return a limit that the API takes, too.

    Raises:
        BadParameter: It is out of range.
    """
    from aiproxyd.storage.listing import MAX_LIMIT

    if not 1 <= value <= MAX_LIMIT:
        message = f"limit value must be between 1 and {MAX_LIMIT}"
        raise typer.BadParameter(message)
    return value


def uuid_of(value: str | None) -> str | None:
    """Return a UUID in its usual spelling, or None for None.

    Raises:
        BadParameter: It is none.
    """
    if value is None:
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        message = f"{value!r} is not a UUID"
        raise typer.BadParameter(message) from None


InitiatorOption = Annotated[
    str, typer.Option("--initiator", help="Only those of this user, by name or id; `me` is you.", show_default=False)
]
ProviderOption = Annotated[str, typer.Option("--provider", help="Only those to this type of provider.", show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", help="Only those that asked for this model.", show_default=False)]
ClientOption = Annotated[
    str, typer.Option("--client", help='Only those of this client, such as "Claude Code".', show_default=False)
]
StartedAfterOption = Annotated[
    datetime | None,
    typer.Option(
        "--started-after",
        parser=time_of,
        metavar="TIME",
        help="Only those that started at this RFC 3339 time or later.",
        show_default=False,
    ),
]
StartedBeforeOption = Annotated[
    datetime | None,
    typer.Option(
        "--started-before",
        parser=time_of,
        metavar="TIME",
        help="Only those that started at this time or earlier.",
        show_default=False,
    ),
]
UrlOption = Annotated[
    str,
    typer.Option(
        "--url", metavar="URL", help="Ask the admin server of a daemon instead of reading the store.", show_default=False
    ),
]
AdminTokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="AIPROXYD_ADMIN_TOKEN",
        help="Its bearer token; AIPROXYD_ADMIN_TOKEN when absent.",
        show_default=False,
        show_envvar=False,
    ),
]


def user_meant(initiator: str, url: str) -> str:
    """Return the user of `--initiator`: in the local store `me` is the person at the terminal, elsewhere whose token is used."""
    if initiator != "me" or url:
        return initiator
    from aiproxyd.identity.users import login_name

    return login_name()


def selection_from(
    *,
    initiator: str = "",
    provider: str = "",
    model: str = "",
    client: str = "",
    started_after: datetime | None = None,
    started_before: datetime | None = None,
) -> "Selection":
    """Return what the options select."""
    from aiproxyd.storage.selection import Selection

    return Selection(
        initiator=initiator,
        provider=provider,
        model=model,
        client=client,
        started_after=started_after,
        started_before=started_before,
    )
