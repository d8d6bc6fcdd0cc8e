import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import aiproxyd.cli
from aiproxyd import __version__
from aiproxyd.cli import main
from aiproxyd.exceptions import StorageError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make an application whose one command raises what it is given."""

    def make(error: BaseException) -> None:
        app = typer.Typer(rich_markup_mode=None)

        @app.callback()
        def root() -> None: ...

        @app.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(aiproxyd.cli, "app", app)

    return make


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (StorageError("the database is locked"), 1, "aiproxyd: the database is locked\n"),
        (FileNotFoundError(2, "No such file or directory", "/a/b"), 1, "aiproxyd: /a/b: No such file or directory\n"),
        (OSError("odd"), 1, "aiproxyd: odd\n"),
        (typer.Abort(), 1, ""),
        (typer.Exit(7), 7, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_is_one_sentence_on_standard_error(failing, capsys, error: BaseException, status: int, sentence: str) -> None:
    failing(error)
    assert main(["fail"]) == status
    assert capsys.readouterr() == ("", sentence)


def test_a_bug_is_not_dressed_up_as_a_sentence(failing) -> None:
    failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["fail"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["chek"], "No such command 'chek'"),
        (["check", "--nonsense"], "No such option"),
        (["check", "extra"], "unexpected extra argument"),
        (["ca"], "Missing command; see aiproxyd ca --help"),
        (["user", "add"], "Missing argument 'NAME'; see aiproxyd user add --help"),
        (["providers", "list", "--output", "xml"], "'xml' is not one of"),
        (["env", "--shell", "nu"], "Invalid value for '--shell': 'nu' is not one of 'bash', "),
        (["run", "--workers", "x"], "Invalid value for '--workers': this takes a whole number; see aiproxyd run --help"),
        (["exec"], "Missing argument"),
    ],
)
def test_a_usage_mistake_is_one_sentence_with_where_to_look(capsys, arguments: list[str], sentence: str) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert "; see aiproxyd" in err
    assert err.count("\n") == 1


def test_a_configuration_mistake_has_status_2(capsys, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("workers: x\n")
    assert main(["check", "--config", str(file)]) == 2
    assert capsys.readouterr().err == f"aiproxyd: {file}, line 1: workers: 'x' should be a valid integer\n"


def test_without_a_command_the_help_is_printed(capsys) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def _commands(command, path: tuple[str, ...] = ()):
    for name, inner in getattr(command, "commands", {}).items():
        yield (*path, name)
        yield from _commands(inner, (*path, name))


ALL = list(_commands(typer.main.get_command(aiproxyd.cli.app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help(capsys, path: tuple[str, ...]) -> None:
    assert main([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: aiproxyd " + " ".join(path))
    if path not in {("user",), ("ca",), ("providers",), ("interceptions",), ("prices",), ("sessions",)}:
        assert "or example:" in out or "Examples:" in out, "help shows an example"
        assert f"aiproxyd {' '.join(path)}" in out.partition("xample")[2]


def test_versions_are_printed(capsys) -> None:
    assert main(["version"]) == 0
    long = capsys.readouterr().out
    assert long.startswith(f"aiproxyd {__version__} (Python 3.")
    assert "mitmproxy 12." in long
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == long


def test_help_imports_nothing_heavy() -> None:
    """What makes a command line slow is what it imports; a count of modules does not depend on the machine."""
    script = "import sys; from aiproxyd.cli import main; main(['--help']); print('|'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ))
    loaded = {name.partition(".")[0] for name in done.stderr.strip().split("|")}
    assert loaded.isdisjoint({"mitmproxy", "cryptography", "pydantic", "sqlalchemy", "fastapi", "uvicorn", "yaml", "rich"})


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "aiproxyd", "chek"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("aiproxyd: No such command")
