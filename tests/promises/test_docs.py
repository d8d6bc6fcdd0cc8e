"""What there is has its place in the documentation, and what the documentation links to is there."""

import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from tests.promises.checkout import ROOT, name_of, tracked_files

DOCS = ROOT / "docs"
PAGES = [path for path in tracked_files() if path.suffix == ".md" and not path.is_relative_to(ROOT / "tests")]

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def command_names(command: object, prefix: str = "") -> list[str]:
    names = []
    for name, child in getattr(command, "commands", {}).items():
        names += command_names(child, f"{prefix}{name} ") if hasattr(child, "commands") else [f"{prefix}{name}"]
    return names


def all_text() -> str:
    return "\n".join(path.read_text() for path in PAGES)


def test_every_command_is_documented() -> None:
    from aiproxyd import cli

    application = next(value for value in vars(cli).values() if isinstance(value, typer.Typer))
    names = command_names(get_command(application))
    assert "run" in names
    text = all_text()
    for name in names:
        # In a table beside its siblings it stands without the program's name.
        assert f"aiproxyd {name}" in text or f"`{name}" in text, f"`aiproxyd {name}` is nowhere in the documentation"


def test_every_setting_is_documented() -> None:
    from aiproxyd.config.fields import fields_of
    from aiproxyd.config.schema import Config

    text = (DOCS / "configuration.md").read_text()
    for name in fields_of(Config):
        assert f"`{name}" in text or f".{name}`" in text, name


def test_every_metric_is_documented() -> None:
    from prometheus_client import CollectorRegistry

    from aiproxyd.telemetry.metrics import MetricsSink

    registry = CollectorRegistry()
    MetricsSink(registry)
    text = (DOCS / "metrics.md").read_text()
    for family in registry.collect():
        assert family.name in text, family.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in _LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_exception_is_in_the_tree_of_its_module() -> None:
    from aiproxyd import exceptions

    for name, value in vars(exceptions).items():
        if isinstance(value, type) and issubclass(value, exceptions.AiproxydError):
            assert name in (exceptions.__doc__ or ""), name
