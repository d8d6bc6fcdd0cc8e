import socket

import pytest

from aiproxyd.mitm.peeked_head import take_head


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


def test_what_stands_behind_a_head_stays_in_the_socket(pair):
    near, far = pair
    head = bytearray()
    far.sendall(b"CONNECT x:1 HTTP/1.1\r\n\r\n\x16\x03")
    assert take_head(near, head)
    assert head == b"CONNECT x:1 HTTP/1.1\r\n\r\n"
    assert near.recv(100) == b"\x16\x03"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_head_may_come_in_parts_wherever_they_are_cut(pair, cut):
    near, far = pair
    head = bytearray()
    whole = b"G / H\r\na:b\r\n\r\n"
    far.sendall(whole[:-cut])
    assert not take_head(near, head)
    far.sendall(whole[-cut:] + b"rest")
    assert take_head(near, head)
    assert head == whole
    assert near.recv(100) == b"rest"


def test_empty_lines_before_a_head_are_skipped_where_that_is_asked_for(pair):
    near, far = pair
    head = bytearray()
    far.sendall(b"\r\n\r\nG / H\r\n\r\n")
    assert not take_head(near, head, skips_empty_lines=True)
    assert take_head(near, head, skips_empty_lines=True)
    assert head == b"G / H\r\n\r\n"
    far.sendall(b"\r\n\r\nG / H\r\n\r\n")
    head.clear()
    assert take_head(near, head)
    assert head == b"\r\n\r\n"


def test_nothing_and_the_end_are_told_apart(pair):
    near, far = pair
    with pytest.raises(BlockingIOError):
        take_head(near, bytearray())
    far.close()
    with pytest.raises(EOFError):
        take_head(near, bytearray())
