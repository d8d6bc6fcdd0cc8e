"""Imports point downwards, and the lower floors are pure: no I/O, no clock, no logging, no `async`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.checkout import ROOT, name_of, package_modules

_PURE = (
    "aiproxyd/model/",
    "aiproxyd/wire/",
    "aiproxyd/providers/",
    "aiproxyd/classify.py",
    "aiproxyd/policy.py",
    "aiproxyd/clients.py",
    "aiproxyd/lineage.py",
    "aiproxyd/redaction.py",
    "aiproxyd/assemble.py",
    "aiproxyd/pricing.py",
    "aiproxyd/exceptions.py",
)
_IMPURE_MODULES = {
    "asyncio",
    "logging",
    "os",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "sqlalchemy",
    "ssl",
    "structlog",
    "subprocess",
    "threading",
    "time",
    "uvloop",
}

# Names without an idea behind them.
_HOMELESS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}

# A reader holds one file in mind at a time.
MAX_LINES = 500


def pure_modules() -> list[Path]:
    return [path for path in package_modules() if name_of(path).startswith(_PURE)]


def test_imports_point_downwards() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", pure_modules(), ids=name_of)
def test_a_lower_floor_is_pure(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), (
            f"async at line {node.lineno}"
        )
        imported = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        for name in imported:
            assert name.partition(".")[0] not in _IMPURE_MODULES, f"{name} at line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input"}, f"{node.func.id} at line {node.lineno}"


def test_no_module_is_without_a_home() -> None:
    for path in package_modules():
        assert path.stem not in _HOMELESS, name_of(path)


@pytest.mark.parametrize("path", package_modules(), ids=name_of)
def test_a_file_is_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    if text.strip() and "migrations/versions" not in name_of(path):
        assert ast.get_docstring(ast.parse(text)), "says at its head what it is"
    for word in ("TODO", "FIXME", "XXX", "HACK"):
        assert word not in text
