"""Writes `reference-commands.md` and `reference-routes.md` from the code. Run `python docs/reference_pages.py` after a change of either."""

import sys
from importlib import resources
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from aiproxyd import cli
from aiproxyd.api.app import create_app
from aiproxyd.api.gate import OPEN_PATHS
from aiproxyd.config.providers import facts_of
from aiproxyd.model.endpoint import Endpoint

FOLDER = Path(__file__).parent
_WRITTEN = "<!-- Made from the code: python docs/reference_pages.py -->"


def commands() -> str:
    """Return the page of every command with its arguments and options."""
    parts = [
        f"# Every command\n\n{_WRITTEN}\n\nWhat each is good for stands in [commands](commands.md). `--help` says the same as this page, with examples.\n"
    ]
    application = next(value for value in vars(cli).values() if isinstance(value, typer.Typer))
    for name, command in _commands(get_command(application), "aiproxyd"):
        parts.append(f"## `{name}`\n\n{_first_paragraph(command.help)}\n")
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts.append("\n".join(["| | meaning |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _commands(command: Any, name: str) -> list[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        return [(name, command)]
    return [found for word, child in children.items() for found in _commands(child, f"{name} {word}")]


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = parameter.metavar or parameter.name.upper()
    else:
        names = ", ".join((*parameter.opts, *parameter.secondary_opts))
        if not parameter.is_flag:
            names += f" {parameter.metavar or parameter.name.upper()}"
    return f"| `{_in_a_cell(names)}` | {_in_a_cell(parameter.help or '')} |"


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split())


def _in_a_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def routes() -> str:
    """Return the page of everything that is answered: by the admin server, and of providers by the proxy."""
    # What the routes show is asked for when they are called.
    document = create_app(None).openapi()  # type: ignore[arg-type]
    rows = [
        f"| `{method.upper()}` | `{path}` | {_in_a_cell(operation['description'])} | {_parameters(operation)} | {_asks(path)} |"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    parts = [
        f"""# Every route

{_WRITTEN}

## The admin server

How to ask is in [API](api.md); `/openapi.json` has every parameter and shape. `/api/v2/aibridge` is another name of `/api/v2/ai-gateway`. People find the page at `/`.

| method | path | what it answers | parameters | token |
|---|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n",
        """## Providers' endpoints

What a decrypted request is, by the provider's type, method and path. One that is *read* is an interception with all its records; any other passes through and is counted. `{}` is one segment of a path, `*` at the end
any rest. What no line names passes through as `other`. *Without the key*: a key of `providers[].keys` does not go there, because it is about what the account keeps.
""",
    ]
    data = resources.files("aiproxyd.providers").joinpath("data")
    for name in sorted(file.name.removesuffix(".yaml") for file in data.iterdir() if file.name.endswith(".yaml")):
        facts = facts_of(name)
        hosts = ", ".join(f"`{host}`" for host in facts.hosts) or "those of its `base_url`"
        parts.append(f"### `{facts.type}`\n\nHosts: {hosts}. Source: {', '.join(facts.source)} ({facts.checked}).\n")
        parts.append("\n".join(["| methods | path | |", "|---|---|---|", *map(_endpoint, facts.endpoints)]) + "\n")
    return "\n".join(parts)


def _parameters(operation: dict[str, Any]) -> str:
    return ", ".join(f"`{parameter['name']}`" for parameter in operation.get("parameters", ())) or "none"


def _asks(path: str) -> str:
    return "no" if path in OPEN_PATHS else "yes"


def _endpoint(endpoint: Endpoint) -> str:
    read = f"read as `{endpoint.api}`" if endpoint.api else "passes through"
    if endpoint.websocket:
        read = f"a WebSocket, its turns read as `{endpoint.websocket}`"
    if not endpoint.takes_key:
        read += ", without the key"
    methods = "any" if "*" in endpoint.methods else ", ".join(f"`{method}`" for method in endpoint.methods)
    return f"| {methods} | `{endpoint.route}` | {read} |"


PAGES = {"reference-commands.md": commands, "reference-routes.md": routes}


def main() -> None:
    """Write both pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())


if __name__ == "__main__":
    sys.exit(main())
