"""The second table of docs/parity.md: each feature says where it is and names tests, and these exist."""

import ast
import re

import pytest

from tests.promises.checkout import ROOT

PAGE = (ROOT / "docs" / "parity.md").read_text().partition("## Features of the documents")[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| feature")
]


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_feature_is_somewhere_and_the_tests_that_show_it_exist(row: list[str]) -> None:
    _, here, shown = row
    assert here
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown)
    # What is not here says why.
    assert named or (shown == "none" and here.startswith("none:"))
    for path, name in named:
        assert name in names_in(path), (path, name)


def test_every_document_is_there() -> None:
    assert len(ROWS) > 30
    assert [line.partition(":")[0] for line in PAGE.splitlines() if line.startswith("### ")] == [
        "### Coder",
        "### Coder",
        "### Bifrost",
    ]
