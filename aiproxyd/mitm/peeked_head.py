"""A head out of a plain socket, and not a byte of what stands behind it: that stays in the kernel, where OpenSSL and `splice` find it."""

import socket

_PEEK_BYTES = 16384


def take_head(connection: socket.socket, head: bytearray, *, skips_empty_lines: bool = False) -> bool:
    """Move what arrived of a head to `head`; return whether it is whole.

    Args:
        connection: Non-blocking.
        head: What was taken before.
        skips_empty_lines: Whether those before a request line are ignored, as RFC 9112 §2.2 has it.

    Raises:
        BlockingIOError: Nothing is there.
        EOFError: The connection ended.
        OSError: It broke.
    """
    peeked = connection.recv(_PEEK_BYTES, socket.MSG_PEEK)
    if not peeked:
        raise EOFError
    if skips_empty_lines and not head:
        blank = len(peeked) - len(peeked.lstrip(b"\r\n"))
        if blank:
            connection.recv(blank)
            return False
    # The end may lie across the border of two reads, so the search begins three bytes before it.
    tail = bytes(head[-3:])
    end = (tail + peeked).find(b"\r\n\r\n")
    head += connection.recv(len(peeked) if end < 0 else end + 4 - len(tail))
    return end >= 0
