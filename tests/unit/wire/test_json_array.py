"""The four tests of a decoder, and the ways an array can be broken row by row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import EventTooLarge, MalformedBody, WireError
from aiproxyd.wire.json_array import JsonArrayDecoder
from tests.support.strategies import splits

MANY = 1 << 20

_texts = st.text(st.sampled_from('ab"\\{}[],: \n\u2028é😀'), max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_items = st.dictionaries(_texts, _values, max_size=3) | st.lists(_values, max_size=3)
_space = st.text(" \t\r\n", max_size=3)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Elements, and an array that has them."""
    items = [
        json.dumps(item, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()
        for item in draw(st.lists(_items, max_size=5))
    ]
    if len(items) == 1 and items[0].startswith(b"{") and draw(st.booleans()):
        body = items[0]
    else:
        body = b"[" + b",".join(draw(_space).encode() + item + draw(_space).encode() for item in items)
        body += draw(_space).encode() + b"]"
    mark = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return items, mark + draw(_space).encode() + body + draw(_space).encode()


def decode(chunks: list[bytes], *, max_item_bytes: int = MANY) -> tuple[list[bytes], bool]:
    decoder = JsonArrayDecoder(max_item_bytes)
    items = [item for chunk in chunks for item in decoder.feed(chunk)]
    return items + decoder.close(), decoder.is_complete


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    items, body = data.draw(arrays())
    assert decode(data.draw(splits(body))) == (items, True)


ROWS = [
    ("nothing", b"", [], False),
    ("an empty array", b"[]", [], True),
    ("an array that is cut between elements", b'[{"a":1},', [b'{"a":1}'], False),
    ("an array that is cut inside an element", b'[{"a":1},{"b":', [b'{"a":1}'], False),
    ("an array that is cut inside a string", b'[{"a":1},{"b":"}]', [b'{"a":1}'], False),
    ("brackets in strings are text", b'[{"a":"}]"},{"b":"\\"]"}]', [b'{"a":"}]"}', b'{"b":"\\"]"}'], True),
    ("a backslash that escapes a backslash", b'[{"a":"\\\\"},{}]', [b'{"a":"\\\\"}', b"{}"], True),
    ("a comma after the last element", b"[{},]", [b"{}"], True),
    ("one object alone", b' {"error":{"code":429}}\n', [b'{"error":{"code":429}}'], True),
    ("elements that are arrays", b"[[1],[[2]]]", [b"[1]", b"[[2]]"], True),
]


@pytest.mark.parametrize(("body", "items", "is_complete"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_reads_whole_and_cut_arrays_whole_and_byte_by_byte(body: bytes, items: list[bytes], is_complete: bool) -> None:
    assert decode([body]) == (items, is_complete)
    assert decode([body[at : at + 1] for at in range(len(body))]) == (items, is_complete)


BROKEN = [
    ("text", b"upstream connect error"),
    ("a number", b"17"),
    ("a string", b'"a"'),
    ("an array of numbers", b"[1, 2]"),
    ("an array that begins with a comma", b"[,{}]"),
    ("two elements without a comma", b"[{}{}]"),
    ("two commas", b"[{},,{}]"),
    ("two arrays", b"[{}] []"),
    ("two objects", b"{}\n{}"),
    ("half a byte order mark", b"\xef\xbb[{}]"),
    ("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbf[{}]"),
]


@pytest.mark.parametrize("body", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_it_refuses_what_is_no_array_of_objects_and_is_spent(body: bytes) -> None:
    for chunks in ([body], [body[at : at + 1] for at in range(len(body))]):
        decoder = JsonArrayDecoder(MANY)
        with pytest.raises(MalformedBody):
            _ = [decoder.feed(chunk) for chunk in [*chunks, b""]]
        with pytest.raises(MalformedBody):
            decoder.feed(b"[")
        with pytest.raises(MalformedBody):
            decoder.close()


def test_elements_before_a_fault_are_returned_before_it_is_raised() -> None:
    decoder = JsonArrayDecoder(MANY)
    assert decoder.feed(b'[{"a":1}{') == [b'{"a":1}']
    with pytest.raises(MalformedBody, match="comma"):
        decoder.feed(b"")


def test_an_element_that_is_too_large_is_let_go_and_the_error_names_its_size_and_the_limit() -> None:
    decoder = JsonArrayDecoder(8)
    with pytest.raises(EventTooLarge, match="holds 9 bytes; the limit is 8 bytes"):
        decoder.feed(b'[{"a":"bcd')
    assert decoder.held_bytes == 0
    assert decode([b'[{"a":12},{"b":34}]'], max_item_bytes=8)[0] == [b'{"a":12}', b'{"b":34}']


def test_each_byte_is_looked_at_once_however_the_body_is_cut() -> None:
    item = json.dumps({"text": 'some "text" with \\ and {brackets}' * 50, "list": [[1, 2], {"a": []}]}).encode()
    body = b"[" + b",\r\n".join([item] * 20) + b"]"
    for size in (1, 7, 1000, len(body)):
        decoder = JsonArrayDecoder(MANY)
        items = [found for at in range(0, len(body), size) for found in decoder.feed(body[at : at + size])]
        assert items == [item] * 20
        assert decoder.scanned_bytes <= len(body)


@given(st.lists(st.binary(max_size=60) | st.text('[]{}",\\ a', max_size=60).map(str.encode), max_size=8), st.integers(1, 40))
def test_arbitrary_bytes_give_elements_or_one_wire_error_within_the_limit(chunks: list[bytes], max_bytes: int) -> None:
    decoder = JsonArrayDecoder(max_bytes)
    try:
        for chunk in chunks:
            for item in decoder.feed(chunk):
                assert len(item) <= max_bytes
            assert decoder.held_bytes <= max_bytes
        decoder.close()
    except WireError:
        with pytest.raises(WireError):
            decoder.feed(b"")
