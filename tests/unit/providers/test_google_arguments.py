"""Paths and values, put together."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers.google_arguments import MAX_STEPS, Arguments, PartialArgument


def built(*pieces: dict[str, Any]) -> Any:
    arguments = Arguments()
    for piece in pieces:
        arguments.add(msgspec.convert(piece, PartialArgument))
    return json.loads(arguments.json())


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], {}),
        ([{"jsonPath": "$.a", "stringValue": "x"}], {"a": "x"}),
        ([{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "stringValue": "y"}], {"a": "xy"}),
        ([{"jsonPath": "$.a", "numberValue": 2}, {"jsonPath": "$.b", "numberValue": 2.5}], {"a": 2, "b": 2.5}),
        ([{"jsonPath": "$.a", "boolValue": False}, {"jsonPath": "$.b", "nullValue": "NULL_VALUE"}], {"a": False, "b": None}),
        ([{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a", "numberValue": 2}], {"a": 2}),
        ([{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a", "stringValue": "x"}], {"a": "x"}),
        ([{"jsonPath": "$.a.b", "numberValue": 1}, {"jsonPath": "$.a.c", "numberValue": 2}], {"a": {"b": 1, "c": 2}}),
        ([{"jsonPath": "$['a b']", "numberValue": 1}, {"jsonPath": '$["c"].d', "numberValue": 2}], {"a b": 1, "c": {"d": 2}}),
        ([{"jsonPath": "$.a[0]", "stringValue": "x"}, {"jsonPath": "$.a[1]", "stringValue": "y"}], {"a": ["x", "y"]}),
        ([{"jsonPath": "$.a[0]", "stringValue": "x"}, {"jsonPath": "$.a[0]", "stringValue": "y"}], {"a": ["xy"]}),
        ([{"jsonPath": "$.a[0].b", "numberValue": 1}, {"jsonPath": "$.a[0].c", "numberValue": 2}], {"a": [{"b": 1, "c": 2}]}),
        # What makes no sense keeps its own name.
        ([{"jsonPath": "$.a[7]", "numberValue": 1}], {"a": [], "$.a[7]": 1}),
        ([{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a.b", "numberValue": 2}], {"a": 1, "$.a.b": 2}),
        ([{"jsonPath": "$.a.b", "numberValue": 1}, {"jsonPath": "$.a[0]", "numberValue": 2}], {"a": {"b": 1}, "$.a[0]": 2}),
        ([{"jsonPath": "$[0]", "numberValue": 1}], {"$[0]": 1}),
        ([{"jsonPath": "$..a", "numberValue": 1}, {"jsonPath": "a", "numberValue": 2}], {"$..a": 1, "a": 2}),
        ([{"jsonPath": "", "numberValue": 1}, {"jsonPath": "$", "numberValue": 2}], {"": 1, "$": 2}),
        ([{"jsonPath": "$['']", "numberValue": 1}], {"": 1}),
    ],
)
def test_pieces_become_the_object_they_mean(pieces: list[dict[str, Any]], expected: Any) -> None:
    assert built(*pieces) == expected


def test_a_path_that_is_too_deep_is_a_name() -> None:
    path = "$" + ".a" * (MAX_STEPS + 1)
    assert built({"jsonPath": path, "numberValue": 1}) == {path: 1}


def test_what_is_taken_in_is_counted() -> None:
    arguments = Arguments()
    arguments.add(PartialArgument(json_path="$.a", string_value="xyz"))
    arguments.add(PartialArgument(json_path="$.b", number_value=1))
    assert arguments.characters == 3 + 3 + 1 + 3 + 1


@given(
    st.lists(
        st.builds(
            PartialArgument,
            json_path=st.text("$.[]'\"ab01", max_size=8),
            string_value=st.none() | st.text(max_size=3),
            number_value=st.none() | st.integers(),
            bool_value=st.none() | st.booleans(),
        ),
        max_size=8,
    )
)
def test_any_pieces_give_one_object(pieces: list[PartialArgument]) -> None:
    arguments = Arguments()
    for piece in pieces:
        arguments.add(piece)
    assert isinstance(json.loads(arguments.json()), dict)
