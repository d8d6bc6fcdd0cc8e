"""The four tests of a collector: whole under any split, linear, total, bounded."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.wire.json_document import DocumentCollector
from tests.support.strategies import splits


@given(st.data())
def test_any_split_gives_the_same_document_without_its_byte_order_mark(data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=300))
    mark = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    collector = DocumentCollector(1000)
    for chunk in data.draw(splits(mark + body)):
        collector.feed(chunk)
    assert collector.held_bytes == len(mark + body)
    assert collector.close() == (mark + body).removeprefix(b"\xef\xbb\xbf")
    assert collector.held_bytes == 0


def test_a_body_at_the_limit_is_kept_and_one_byte_more_lets_go_of_all() -> None:
    collector = DocumentCollector(4)
    collector.feed(b"ab")
    collector.feed(b"cd")
    with pytest.raises(MalformedBody, match="body exceeds 4 bytes"):
        collector.feed(b"e")
    assert collector.is_too_large
    assert collector.held_bytes == 0
    with pytest.raises(MalformedBody, match="body exceeds 4 bytes"):
        collector.feed(b"")
    with pytest.raises(MalformedBody, match="body exceeds 4 bytes"):
        collector.close()


@given(st.lists(st.binary(max_size=50)), st.integers(0, 100))
def test_it_never_holds_more_than_its_limit(chunks: list[bytes], max_body_bytes: int) -> None:
    collector = DocumentCollector(max_body_bytes)
    for chunk in chunks:
        try:
            collector.feed(chunk)
        except MalformedBody:
            assert collector.is_too_large
        assert collector.held_bytes <= max_body_bytes


def test_memory_and_copies_stay_near_the_body_when_it_comes_in_crumbs() -> None:
    body = bytes(range(256)) * 1024
    collector = DocumentCollector(1 << 20)
    tracemalloc.start()
    try:
        for start in range(0, len(body), 2):
            collector.feed(body[start : start + 2])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1.5 * len(body)
    assert collector.close() == body


def test_a_document_in_one_chunk_is_not_copied() -> None:
    body = b'{"a": 1}'
    collector = DocumentCollector(100)
    collector.feed(body)
    assert collector.close() is body
