"""The pages of every command and route are what the code says."""

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.promises.checkout import ROOT

DOCS = ROOT / "docs"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["reference-commands.md", "reference-routes.md"])
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == script().PAGES[name](), "run: python docs/reference_pages.py"


def test_every_route_of_the_admin_server_is_on_the_page_and_the_page_names_no_other() -> None:
    from aiproxyd.api.app import create_app
    from aiproxyd.api.rest import create_router

    text = (DOCS / "reference-routes.md").read_text()
    for route in create_router(None).routes:  # type: ignore[arg-type]
        path = str(route.path).replace(":path}", "}")  # type: ignore[attr-defined]
        assert f"`/api/v2/ai-gateway{path}`" in text, path
    documented = create_app(None).openapi()["paths"]  # type: ignore[arg-type]
    section = text.partition("## Providers' endpoints")[0]
    named = {line.split("`")[3] for line in section.splitlines() if line.startswith("| `")}
    assert named == set(documented)


def test_every_option_of_every_command_is_on_the_page() -> None:
    import typer
    from typer.main import get_command

    from aiproxyd import cli

    text = (DOCS / "reference-commands.md").read_text()

    def look(command: object, name: str) -> int:
        children = getattr(command, "commands", None)
        if children is not None:
            return sum(look(child, f"{name} {word}") for word, child in children.items())
        section = text.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:  # type: ignore[attr-defined]
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert parameter.opts[0] in section, (name, parameter.opts)
        return 1

    application = next(value for value in vars(cli).values() if isinstance(value, typer.Typer))
    assert look(get_command(application), "aiproxyd") > 15
