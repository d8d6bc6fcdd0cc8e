"""Edits of a request's head: what is changed, and that nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.wire.http1_edit import HeadEdits, edited
from aiproxyd.wire.http1_head import read_request

RAW = b"POST /v1/x?a=b HTTP/1.1\r\nhOST:  a \r\nX-Key: 1\r\n  folded\r\nx-other:2\r\nX-KEY: 3\r\n\r\n"


def test_without_edits_a_head_is_as_it_was():
    assert edited(RAW, HeadEdits()) == RAW
    assert edited(b"GET / HTTP/1.0\r\n\r\n", HeadEdits()) == b"GET / HTTP/1.0\r\n\r\n"


def test_a_field_is_set_in_the_place_of_the_first_of_its_name_and_the_others_go():
    edits = HeadEdits(fields=(("x-key", "new"), ("X-More", "m")))
    assert edited(RAW, edits) == b"POST /v1/x?a=b HTTP/1.1\r\nhOST:  a \r\nx-key: new\r\nx-other:2\r\nX-More: m\r\n\r\n"


def test_removed_fields_go_with_their_folds_unless_they_are_set():
    assert edited(RAW, HeadEdits(removed=frozenset({"x-key"}))) == b"POST /v1/x?a=b HTTP/1.1\r\nhOST:  a \r\nx-other:2\r\n\r\n"
    edits = HeadEdits(removed=frozenset({"x-key", "host"}), fields=(("Host", "b"),))
    assert edited(RAW, edits) == b"POST /v1/x?a=b HTTP/1.1\r\nHost: b\r\nx-other:2\r\n\r\n"


def test_the_target_is_changed_and_method_and_version_stay():
    assert edited(RAW, HeadEdits(target="/p/v1/x?a=b")).startswith(b"POST /p/v1/x?a=b HTTP/1.1\r\nhOST:  a \r\n")


@pytest.mark.parametrize(
    "edits",
    [
        HeadEdits(fields=(("a", "b\r\nc: d"),)),
        HeadEdits(fields=(("a", "b\nc"),)),
        HeadEdits(fields=(("a", "\0"),)),
        HeadEdits(fields=(("a", "€"),)),
        HeadEdits(target="/a b"),
        HeadEdits(target="/a\r\nb"),
        HeadEdits(target="/ä"),
    ],
)
def test_nothing_that_would_forge_a_line_is_written(edits):
    with pytest.raises(ValueError, match=r"line|word|latin|codec"):
        edited(RAW, edits)


NAMES = st.sampled_from(["host", "X-Key", "x-key", "Content-Type", "accept"])
FIELDS = st.lists(st.tuples(NAMES, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=9)), max_size=9)


@given(FIELDS, FIELDS, st.frozensets(NAMES.map(str.lower)))
def test_an_edited_head_reads_as_the_fields_edited(before, wanted, removed):
    wanted = tuple({name.lower(): (name, value) for name, value in wanted}.values())
    raw = b"GET / HTTP/1.1\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in before) + b"\r\n"
    head, _ = read_request(edited(raw, HeadEdits(removed=removed, fields=wanted)))
    changed = {name.lower() for name, _ in wanted} | removed
    assert [field for field in head.headers if field[0] not in changed] == [
        (name.lower(), value) for name, value in before if name.lower() not in changed
    ]
    assert sorted(field for field in head.headers if field[0] in changed) == sorted(
        (name.lower(), value) for name, value in wanted
    )
