"""Every test that the page of parity names exists."""

import ast
import re

import pytest

from tests.promises.checkout import ROOT

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _named() -> list[tuple[str, str]]:
    return sorted(set(_NAMED.findall((ROOT / "docs" / "parity.md").read_text())))


@pytest.mark.parametrize(("file", "test"), _named())
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert test in names


def test_every_line_of_the_acceptance_list_has_a_test_or_a_reason() -> None:
    text = (ROOT / "docs" / "parity.md").read_text()
    table = text.partition("## The acceptance list of Coder's proxy")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 50
    for row in rows:
        _, line, answer, _ = (cell.strip() for cell in row.split("|"))
        assert line
        tests = [test for _, test in _NAMED.findall(answer)]
        # The name begins as the line does, so that whoever looks for one finds the other.
        group = line.partition(":")[0].lower().replace(" ", "_")
        assert any(test.startswith((f"test_{group}", f"test_hot_{group}")) for test in tests) or (
            not tests and len(answer) > 20
        ), row
