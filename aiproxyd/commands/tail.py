"""`aiproxyd tail`: what flows through a running daemon, as it happens."""

import enum
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.records import answer_of, remote_client
from aiproxyd.commands.running import running_daemon
from aiproxyd.commands.selecting import AdminTokenOption, UrlOption
from aiproxyd.commands.table import json_text
from aiproxyd.exceptions import AiproxydError

if TYPE_CHECKING:
    import httpx

_MAX_CONTENT_CHARACTERS = 160

_LINE = re.compile(r"(\w+): ?(.*)\Z", re.DOTALL)


class TailOutput(enum.StrEnum):
    """How events are printed."""

    TABLE = "table"
    JSONL = "jsonl"


def tail(
    *,
    output: Annotated[
        TailOutput, typer.Option("--output", "-o", help="`table` for people, `jsonl` for programs.")
    ] = TailOutput.TABLE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Stop after so many; 0 goes on.")] = 0,
    url: UrlOption = "",
    token: AdminTokenOption = "",
    config: ConfigOption = None,
) -> None:
    """Show requests, tool calls and ends as they happen, after the last few.

    Asks the daemon of the configuration unless `--url` names another one.

    For example:

      aiproxyd tail

      aiproxyd tail --output jsonl | jq 'select(.kind == "tool") | .tool'

      aiproxyd tail --url http://proxy.example:8889 --token TOKEN
    """
    import httpx

    if not url:
        settings = read_configuration(config)
        daemon = running_daemon(settings)
        if daemon is None:
            raise AiproxydError(f"no daemon runs in {settings.data_dir}; start it with `aiproxyd run` or give --url")
        url = f"http://{daemon.admin}"
        token = token or (settings.admin.token.get_secret_value() if settings.admin.token else "")
    shown = 0
    # The server says something every 15 seconds.
    timeout = httpx.Timeout(10.0, read=60.0)
    try:
        with remote_client(url, token) as client, client.stream("GET", "/live", timeout=timeout) as response:
            if not response.is_success:
                response.read()
                answer_of(response)
            for event in _events(response):
                typer.echo(json_text(event, indent=None) if output is TailOutput.JSONL else _sentence(event))
                shown += 1
                if shown == lines:
                    return
    except KeyboardInterrupt:
        return
    except httpx.HTTPError as exc:
        raise AiproxydError(f"{url} cannot be asked: {exc}") from exc


def _events(response: "httpx.Response") -> Iterator[dict[str, Any]]:
    kind = ""
    for line in response.iter_lines():
        match = _LINE.match(line)
        if match is None:
            continue
        if match[1] == "event":
            kind = match[2]
        elif match[1] == "data":
            event = json.loads(match[2])
            yield {"kind": kind, **event}


def _sentence(event: dict[str, Any]) -> str:
    kind = event["kind"]
    match kind:
        case "described":
            said = event.get("prompt") or ""
        case "tool":
            said = f"{event['tool']} {event.get('input') or ''}"
        case "thought":
            said = event.get("content") or ""
        case "ended":
            said = _end(event)
        case "refused":
            said = f"{event['host']}: {event['reason']}"
        case "dropped":
            said = f"{event['count']} events were missed"
        case _:
            said = event.get("route", "")
    words = [event.get("at", "")[11:19], f"{kind:<9}", event.get("user", ""), event.get("model", ""), " ".join(said.split())]
    line = "  ".join(word for word in words if word)
    line = line if len(line) <= _MAX_CONTENT_CHARACTERS else line[: _MAX_CONTENT_CHARACTERS - 1] + "…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def _end(event: dict[str, Any]) -> str:
    error = f", {event['error_type']}" if event.get("error_type") else ""
    tokens = (
        f"{event['input_tokens']} in, {event['cache_read_input_tokens']} cached, {event['output_tokens']} out"
        if "input_tokens" in event
        else ""
    )
    return f"{event['outcome']}{error}  {tokens}  {event['duration_seconds']:.1f} s"
