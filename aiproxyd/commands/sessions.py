"""`aiproxyd sessions`: what belongs together, in threads."""

from typing import Annotated, Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.records import open_records
from aiproxyd.commands.selecting import (
    AdminTokenOption,
    ClientOption,
    InitiatorOption,
    ModelOption,
    ProviderOption,
    StartedAfterOption,
    StartedBeforeOption,
    UrlOption,
    limit_of,
    selection_from,
    user_meant,
)
from aiproxyd.commands.table import Output, OutputOption, json_text, print_programs, print_rows
from aiproxyd.exceptions import AiproxydError

app = typer.Typer(help="Sessions: requests that belong together.", rich_markup_mode=None)

_MAX_PROMPT_CHARACTERS = 60


@app.command("list")
def list_(
    *,
    initiator: InitiatorOption = "",
    provider: ProviderOption = "",
    model: ModelOption = "",
    client: ClientOption = "",
    started_after: StartedAfterOption = None,
    started_before: StartedBeforeOption = None,
    limit: Annotated[int, typer.Option(callback=limit_of, help="At most so many, from 1 to 1000.")] = 100,
    output: OutputOption = Output.TABLE,
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """List sessions, the last active first.

    For example:

      aiproxyd sessions list --initiator alice --limit 20

      aiproxyd sessions list --model claude-sonnet-4-5 --output jsonl | jq .last_prompt

      aiproxyd sessions list --url http://proxy.example:8889 --token TOKEN
    """
    selection = selection_from(
        initiator=user_meant(initiator, url),
        provider=provider,
        model=model,
        client=client,
        started_after=started_after,
        started_before=started_before,
    )
    with open_records(lambda: read_configuration(config).store_url, url, token) as records:
        found = records.sessions(selection, limit)
    if output is not Output.TABLE:
        print_programs(found, output=output)
        return
    columns = ["last_active", "user", "client", "models", "threads", "tokens", "cost", "last_prompt", "id"]
    print_rows([_row(session) for session in found], columns, output=output, empty="no session was found")


@app.command()
def show(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session's id, or that of a request in it.")],
    *,
    initiator: Annotated[
        str, typer.Option(help="Id of the user, where several share the session's id.", show_default=False)
    ] = "",
    output: OutputOption = Output.TABLE,
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """Print a session with its threads: prompts, reasoning, tool calls.

    For example:

      aiproxyd sessions show 5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11

      aiproxyd sessions show 5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11 --output json
    """
    with open_records(lambda: read_configuration(config).store_url, url, token) as records:
        found = records.session(session_id, initiator)
    if found is None:
        raise AiproxydError(f"session {session_id!r} not found")
    match output:
        case Output.JSON:
            typer.echo(json_text(found))
        case Output.TABLE:
            _print_threads(found)
        case _:
            print_programs(found["threads"], output=output)


def _row(session: dict[str, Any]) -> dict[str, Any]:
    prompt = " ".join((session["last_prompt"] or "").split())
    return {
        "last_active": session["last_active_at"][:19].replace("T", " "),
        "user": session["initiator"]["username"] or session["initiator"]["id"],
        "client": session["client"],
        "models": session["models"],
        "threads": session["threads"],
        "tokens": sum(session["token_usage_summary"].values()),
        "cost": dollars(session["cost_micros"]),
        "last_prompt": prompt if len(prompt) <= _MAX_PROMPT_CHARACTERS else prompt[: _MAX_PROMPT_CHARACTERS - 1] + "…",
        "id": session["id"],
    }


def dollars(micros: int | None) -> str:
    """Return micro-USD as dollars; nothing where they are not known."""
    return "" if micros is None else f"${micros / 1_000_000:,.4f}"


def _print_threads(session: dict[str, Any]) -> None:
    user = session["initiator"]["username"] or session["initiator"]["id"]
    _say(f"session {session['id']} of {user}, {session['client']}, {session['started_at']} to {session['ended_at']}")
    for thread in session["threads"]:
        usage = thread["token_usage"]
        figures = f"{usage['input_tokens']} in, {usage['cache_read_input_tokens']} cached, {usage['output_tokens']} out"
        _say("")
        _say(f"{thread['started_at']}  {thread['model']}  {figures}  {dollars(thread['cost_micros'])}".rstrip())
        for line in (thread["prompt"] or "(no prompt)").splitlines():
            _say(f"  > {line}")
        if thread["error_type"]:
            _say(f"  ! {thread['error_type']}: {thread['error_message'] or ''}")
        for action in thread["agentic_actions"]:
            for thought in action["thinking"]:
                _say(f"  ~ {' '.join((thought['text'] or '').split())}")
            for call in action["tool_calls"]:
                _say(f"  * {call['tool']} {call['input'] or ''}")


def _say(line: str) -> None:
    # A terminal obeys nothing that a client sent.
    typer.echo("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line))
