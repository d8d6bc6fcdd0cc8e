"""What real providers get wrong in their JSON, and what is made of it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.providers.decoding import decode, is_null, json_text, repaired, short, starts_with, text_of, unknown

ANY = msgspec.json.Decoder()


class Row(msgspec.Struct):
    a: str | None = None


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b'{"a":"\\ud800"}', "\ufffd", id="lone high surrogate"),
        pytest.param(b'{"a":"\\udc00x"}', "\ufffdx", id="lone low surrogate"),
        pytest.param(b'{"a":"\\ud800\\ud83d\\ude00"}', "\ufffd\U0001f600", id="lone surrogate before a pair"),
        pytest.param(b'{"a":"\\\\ud800","n":NaN}', "\\ud800", id="an escaped backslash is no escape"),
        pytest.param(b'{"a":"\xff\xe4"}', "\ufffd\ufffd", id="not UTF-8"),
        pytest.param(b'{"a":"x\ny\tz"}', "x\ny\tz", id="control characters"),
        pytest.param(b'\xef\xbb\xbf{"a":"x"}', "x", id="byte order mark"),
        pytest.param(b'{"n":[NaN,Infinity,-Infinity],"a":"NaN, -Infinity"}', "NaN, -Infinity", id="no numbers"),
        pytest.param(b' \n{"a":"x"}\r\n', "x", id="white space around"),
    ],
)
def test_what_other_readers_accept_is_accepted(data: bytes, value: str) -> None:
    assert decode(msgspec.json.Decoder(Row), data).a == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":"x',
        b'{"a":tru}',
        b"{'a':1}",
        b'{"a":"\\x"}',
        b'{"a":1}',
        b"[]",
        b"[" * 200_000,
        b'{"b":' * 200_000,
        b'"\\',
        b"nul",
    ],
)
def test_what_nobody_accepts_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode(msgspec.json.Decoder(Row), data)


def test_the_message_tells_the_field_and_not_the_content() -> None:
    with pytest.raises(MalformedBody) as caught:
        decode(msgspec.json.Decoder(dict[str, Row]), b'{"x":{"a":["secret"]}}')
    assert "$[...].a" in str(caught.value)
    assert "secret" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_pythons_json_writes_is_read_with_null_for_what_is_no_number(value: Any) -> None:
    text = json.dumps(value)
    expected = json.loads(text, parse_constant=lambda _: None)
    # A lone surrogate that hypothesis does not make; all else must come through unchanged.
    assert decode(ANY, text.encode()) == expected


@given(st.binary())
def test_repairing_never_fails_and_gives_utf8(data: bytes) -> None:
    repaired(data).decode()


@given(
    st.recursive(st.none() | st.text(st.characters(exclude_categories=["Cs"])), lambda inner: st.lists(inner), max_leaves=10)
)
def test_repairing_changes_nothing_that_is_right(value: Any) -> None:
    data = msgspec.json.encode(value)
    assert repaired(data) == data


def test_an_unclosed_string_full_of_escapes_is_looked_at_once() -> None:
    # Each quote that starts a search to the end would make this quadratic: four seconds become hours.
    assert len(repaired(b'"' + b'\\"' * 500_000)) == 1_000_001


def test_raw_values_are_told_by_their_first_byte() -> None:
    assert text_of(msgspec.Raw(b'"a\\n"')) == "a\n"
    assert text_of(msgspec.Raw(b'"\\ud800"')) == "\ufffd"
    assert [text_of(msgspec.Raw(raw)) for raw in (b"", b"7", b'{"a":"b"}', b'"\\x"', b"null")] == [None] * 5
    assert [is_null(msgspec.Raw(raw)) for raw in (b"", b"null", b"0", b'"null"')] == [True, True, False, False]
    assert starts_with(msgspec.Raw(b"[1]"), b"[")
    assert not starts_with(msgspec.Raw(b""), b"[")
    assert json_text(msgspec.Raw(b'{"a":"\xff"}')) == '{"a":"\ufffd"}'
    assert short("x" * 1000) == "x" * 64


def test_what_has_no_type_at_all_misses_it() -> None:
    assert unknown("item", "hologram").kind == "item:hologram"
    assert unknown("item", "").kind == "missing:item.type"
