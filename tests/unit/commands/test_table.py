import json

import pytest

from aiproxyd.commands.table import Output, print_rows

ROWS = [{"name": "a", "two_words": ["x", "y"], "hidden": None}, {"name": "longer", "two_words": None, "hidden": 1}]


def test_columns_are_aligned_and_nothing_trails(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, ["name", "two_words"], output=Output.TABLE, empty="none")
    assert capsys.readouterr().out == "NAME    TWO WORDS\na       x, y\nlonger\n"


def test_json_holds_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, ["name"], output=Output.JSON, empty="none")
    assert json.loads(capsys.readouterr().out) == ROWS
    print_rows([], ["name"], output=Output.JSON, empty="none")
    assert json.loads(capsys.readouterr().out) == []


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], ["name"], output=Output.TABLE, empty="there are none")
    assert capsys.readouterr().out == "there are none\n"


def test_a_value_cannot_drive_the_terminal_or_break_the_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": "a\x1b[31m\nb"}], ["name"], output=Output.TABLE, empty="none")
    assert capsys.readouterr().out == "NAME\na\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b\n"
