"""What the pages name exists: commands with their options, settings, metrics, make's verbs, files of the examples."""

import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from aiproxyd import cli
from aiproxyd.config.fields import fields_of
from aiproxyd.config.schema import Config
from aiproxyd.config.section import Section
from tests.promises.checkout import ROOT, name_of, tracked_files
from tests.support.promql import known_series

PAGES = [
    path
    for path in tracked_files()
    if path.suffix == ".md" and not path.is_relative_to(ROOT / "tests") and path.name not in {"CHANGELOG.md", "decisions.md"}
]
EXAMPLES = [path for path in tracked_files() if path.is_relative_to(ROOT / "examples") and path.suffix != ".py"]

_COMMAND = re.compile(r"(?<![\w/.-])(?:[\w./-]*/)?aiproxyd ((?:[a-z]+[ `)\n]|-)[^`\n|;)#>&]*)")
_SETTING = re.compile(r"`([a-z_]+(?:\[\])?(?:\.[a-z_]+(?:\[\])?)+)(?:: [^`]*)?`")
_METRIC = re.compile(r"\b(coder_ai_gateway_\w*[a-z])\b(?!…)")
_VERB = re.compile(r"\bmake ([a-z-]+)\b")


def mistakes_of_commands(text: str) -> list[str]:
    mistakes = []
    top = get_command(next(value for value in vars(cli).values() if isinstance(value, typer.Typer)))
    for found in _COMMAND.findall(text):
        command, words = top, found.replace("`", " ").split()
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if command is top or hasattr(command, "commands"):
            # Prose, such as "aiproxyd is", and groups, such as "aiproxyd user".
            continue
        for word in words:
            if word == "--":
                break
            option = word.partition("=")[0]
            known = {"--help"}.union(*((*parameter.opts, *parameter.secondary_opts) for parameter in command.params))
            if option.startswith("--") and option not in known:
                mistakes.append(f"aiproxyd {found.strip()}: {option}")
    return mistakes


@pytest.mark.parametrize("path", PAGES + EXAMPLES, ids=name_of)
def test_commands_have_the_options_that_are_named(path: Path) -> None:
    assert mistakes_of_commands(path.read_text()) == []


def test_an_option_that_does_not_exist_is_found() -> None:
    assert mistakes_of_commands("Run `aiproxyd usage --by user --sing loudly` or aiproxyd exec -- codex --yolo.") == [
        "aiproxyd usage --by user --sing loudly: --sing"
    ]


def is_setting(name: str) -> bool:
    section: type[Section] | None = Config
    for step in name.replace("[]", "").split("."):
        field = fields_of(section).get(step) if section is not None else None
        if field is None:
            return section is None
        section = field.section
    return True


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_settings_that_are_named_exist(path: Path) -> None:
    sections = fields_of(Config)
    named = [name for name in _SETTING.findall(path.read_text()) if name.replace("[]", "").split(".")[0] in sections]
    # Not a setting: what the gen_ai conventions and provider packages are called, names of files.
    assert [name for name in named if not is_setting(name) and not name.endswith((".json", ".md", ".py", ".yaml"))] == []


def test_a_setting_that_does_not_exist_is_found() -> None:
    assert is_setting("egress.allowed_ports")
    assert is_setting("providers[].keys[]")
    assert not is_setting("egress.allowed_doors")


@pytest.mark.parametrize("path", PAGES + EXAMPLES, ids=name_of)
def test_metrics_that_are_named_exist(path: Path) -> None:
    known = known_series()
    families = {name.removesuffix(ending) for name in known for ending in ("", "_bucket", "_sum", "_count")}
    named = set(_METRIC.findall(path.read_text()))
    assert {
        name for name in named if name not in families and not any(other.startswith(name + "_") for other in known)
    } == set()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_verbs_of_make_that_are_named_exist(path: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    in_code = "\n".join(re.findall(r"`[^`]+`|```.*?```", path.read_text(), re.DOTALL))
    assert set(_VERB.findall(in_code)) <= verbs


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_of_the_examples_that_are_named_exist(path: Path) -> None:
    # Those that its reader makes.
    made = {"examples/docker/.env", "examples/kubernetes/ca", "examples/kubernetes/ca/", "examples/kubernetes/tokens.env"}
    for name in re.findall(r"(?<!tests/)\bexamples/[\w./*-]*[\w*/]|\bexamples/docker/\.env\b", path.read_text()):
        assert name in made or list(ROOT.glob(name.rstrip("/"))), name
