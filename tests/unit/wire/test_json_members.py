"""The four tests of a decoder, and the ways an object can be broken row by row."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import EventTooLarge, MalformedBody, WireError
from aiproxyd.wire.json_members import JsonMembersDecoder
from tests.support.strategies import splits

MANY = 1 << 20
WANTED = ("usage", "model")

_texts = st.text(st.sampled_from('ab"\\{}[],: \né😀'), max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_space = st.text(" \t\r\n", max_size=2).map(str.encode)


@st.composite
def objects(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """The wanted members, and an object that has them and others."""
    wanted: dict[str, Any] = {}
    members: list[bytes] = []
    for name in draw(st.lists(st.sampled_from([*WANTED, "data", "a\\b", 'x"y', "usage "]) | _texts, max_size=5)):
        value = draw(_values)
        if name in WANTED:
            wanted[name] = value
        written = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()
        space = [draw(_space) for _ in range(4)]
        members.append(space[0] + json.dumps(name).encode() + space[1] + b":" + space[2] + written + space[3])
    mark = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return wanted, mark + draw(_space) + b"{" + b",".join(members) + draw(_space) + b"}" + draw(_space)


def feed_all(decoder: JsonMembersDecoder, chunks: list[bytes]) -> dict[str, bytes]:
    for chunk in chunks:
        decoder.feed(chunk)
    return decoder.close()


def decode(chunks: list[bytes]) -> dict[str, bytes]:
    return feed_all(JsonMembersDecoder(WANTED, MANY), chunks)


@given(st.data())
def test_what_the_grammar_writes_is_read_back_under_any_split(data: st.DataObject) -> None:
    wanted, body = data.draw(objects())
    found = decode(data.draw(splits(body)))
    assert {name: json.loads(value) for name, value in found.items()} == wanted


ROWS = [
    ("an empty object", b"{}", {}),
    ("none that is wanted", b'{"data":[[1,2],{"usage":1}],"x":"\\"usage\\":2"}', {}),
    ("one of each kind", b'{"usage":{"a":[1]},"model":"m"}', {"usage": b'{"a":[1]}', "model": b'"m"'}),
    ("words", b'{"usage":null,"model":-1.5e3}', {"usage": b"null", "model": b"-1.5e3"}),
    ("a word before white space", b'{"usage":7 ,"model":8\n}', {"usage": b"7", "model": b"8"}),
    ("brackets and marks in strings", b'{"usage":"}]\\\\","model":["\\"]"]}', {"usage": b'"}]\\\\"', "model": b'["\\"]"]'}),
    ("a name that came twice", b'{"usage":1,"usage":[2]}', {"usage": b"[2]"}),
    ("a name that begins like one", b'{"usag":1,"usagex":2,"model":3}', {"model": b"3"}),
    ("a name without end", b'{"' + b"usage" * 100 + b'":1,"model":3}', {"model": b"3"}),
    ("white space after the end", b"{}\r\n", {}),
]


@pytest.mark.parametrize(("body", "members"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_it_reads_objects_whole_and_byte_by_byte(body: bytes, members: dict[str, bytes]) -> None:
    assert decode([body]) == members
    assert decode([body[at : at + 1] for at in range(len(body))]) == members


BROKEN = [
    ("nothing", b"", "empty"),
    ("white space", b" \n", "empty"),
    ("text", b"no healthy upstream", "no JSON object"),
    ("an array", b"[{}]", "no JSON object"),
    ("half a byte order mark", b"\xef\xbb{}", "no UTF-8"),
    ("a cut name", b'{"usa', "cut"),
    ("a cut value", b'{"usage":{"a":', "cut"),
    ("a cut word", b'{"usage":12', "cut"),
    ("a cut string", b'{"usage":"\\', "cut"),
    ("no end", b'{"usage":{}', "cut"),
    ("no colon", b'{"usage" 1}', "grammar"),
    ("no comma", b'{"usage":{} "model":1}', "grammar"),
    ("no value", b'{"usage":}', "no value"),
    ("no name", b"{1:2}", "grammar"),
    ("a comma before the end", b'{"usage":1,}', "grammar"),
    ("two objects", b"{}{}", "goes on"),
]


@pytest.mark.parametrize(("body", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_it_refuses_what_is_no_object_and_is_spent(body: bytes, message: str) -> None:
    for chunks in ([body], [body[at : at + 1] for at in range(len(body))]):
        decoder = JsonMembersDecoder(WANTED, MANY)
        with pytest.raises(MalformedBody, match=message):
            feed_all(decoder, chunks)
        for again in (decoder.close, lambda decoder=decoder: decoder.feed(b"{}")):
            with pytest.raises(MalformedBody, match=message):
                again()


def test_what_is_passed_over_is_never_held_and_what_is_kept_has_a_limit() -> None:
    decoder = JsonMembersDecoder(WANTED, 20)
    decoder.feed(b'{"data":[')
    for _ in range(1000):
        decoder.feed(b'{"embedding":"' + b"A" * 100 + b'"},')
        assert decoder.held_bytes == 0
    decoder.feed(b'{}],"usage":{"prompt_tokens":7}')
    assert decoder.held_bytes == 19
    with pytest.raises(EventTooLarge, match="holds 22 bytes; the limit is 20 bytes"):
        decoder.feed(b',"model":"me')
    assert decoder.held_bytes == 0
    with pytest.raises(EventTooLarge):
        decoder.close()


def test_each_byte_is_looked_at_about_once_however_the_body_is_cut() -> None:
    body = json.dumps(
        {"data": [{"x": [0.5] * 50, "y": 'a "b" \\ c' * 50}] * 20, "model": "m" * 500, "usage": {"a": 1}}
    ).encode()
    for size in (1, 7, 1000, len(body)):
        decoder = JsonMembersDecoder(WANTED, MANY)
        for at in range(0, len(body), size):
            decoder.feed(body[at : at + size])
        assert set(decoder.close()) == {"usage", "model"}
        assert decoder.scanned_bytes <= 2 * len(body)


@given(
    st.lists(st.binary(max_size=60) | st.text('{}"usage:,\\ []1', max_size=60).map(str.encode), max_size=8), st.integers(1, 40)
)
def test_arbitrary_bytes_give_members_or_one_wire_error_within_the_limit(chunks: list[bytes], max_bytes: int) -> None:
    decoder = JsonMembersDecoder(WANTED, max_bytes)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            assert decoder.held_bytes <= max_bytes
        decoder.close()
    except WireError:
        with pytest.raises(WireError):
            decoder.close()
