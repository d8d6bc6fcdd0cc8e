"""Heads: what is read, what is refused, and what is changed byte-exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.exceptions import MalformedBody
from aiproxyd.wire.http1_head import (
    UNTIL_CLOSE,
    Unfollowable,
    for_origin,
    has_proxy_fields,
    keeps_alive,
    parse_request,
    plain_answer,
    read_request,
    read_response,
    request_length,
    response_length,
    without_fields,
    without_proxy_fields,
)


def request(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/v1/messages?a=b?c", "/v1/messages", "a=b?c"),
        ("http://h/v1/x?q", "/v1/x", "q"),
        ("HTTPS://h:1", "/", ""),
        ("http://h?q", "/", "q"),
        ("*", "*", ""),
        ("h:443", "h:443", ""),
    ],
)
def test_the_path_is_that_of_the_origin_form_whatever_the_form(target, path, query):
    head, as_written = read_request(request(f"GET {target} HTTP/1.1", "Host: h"))
    assert (head.path, head.query, as_written) == (path, query, target)


def test_names_are_lower_case_values_trimmed_and_folds_are_a_space():
    head, _ = read_request(request("GET / HTTP/1.0", "X-Odd: \t a b \t", "x-odd:", "Folded: a", "  b", "\tc"))
    assert list(head.headers) == [("x-odd", "a b"), ("x-odd", ""), ("folded", "a b c")]
    assert (head.method, head.version) == ("GET", "1.0")


@pytest.mark.parametrize("name", ["Content-Length", "TRANSFER-ENCODING", "Host", "Connection", "Upgrade"])
def test_a_fold_where_messages_begin_or_end_is_refused(name):
    with pytest.raises(Unfollowable):
        read_request(request("GET / HTTP/1.1", f"{name}:", " x"))


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ((), 0),
        (("Content-Length: 12",), 12),
        (("Content-Length: 12, 12", "content-length:12"), 12),
        (("Transfer-Encoding: Chunked",), None),
    ],
)
def test_the_length_of_a_request(lines, length):
    head, _ = read_request(request("POST / HTTP/1.1", *lines))
    assert request_length(head) == length


@pytest.mark.parametrize(
    ("status", "lines", "method", "length"),
    [
        (200, (), "GET", UNTIL_CLOSE),
        (200, ("Content-Length: 5",), "GET", 5),
        (200, ("Content-Length: 5",), "HEAD", 0),
        (204, ("Content-Length: 5",), "GET", 0),
        (304, ("Transfer-Encoding: chunked",), "GET", 0),
        (200, ("Transfer-Encoding: chunked", "Content-Length: 9"), "GET", None),
    ],
)
def test_the_length_of_a_response(status, lines, method, length):
    assert response_length(read_response(request(f"HTTP/1.1 {status} X", *lines)), method) == length


@pytest.mark.parametrize("start", ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200 Caf\xe9 \t ok"])
def test_a_reason_may_be_empty_or_odd(start):
    assert read_response(request(start)).status_code == 200


@pytest.mark.parametrize("start", ["HTTP/1.1 20", "HTTP/1.1  200 OK", "HTTP/2 200 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 X"])
def test_what_is_no_status_line_is_refused(start):
    with pytest.raises(Unfollowable, match="head"):
        read_response(request(start))


def test_a_request_for_us_is_refused_with_a_reason_when_it_is_malformed():
    with pytest.raises(MalformedBody, match="head"):
        parse_request(b"nonsense\r\n\r\n")
    with pytest.raises(MalformedBody, match="both_lengths"):
        parse_request(request("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"))
    head, target = parse_request(request("CONNECT a:443 HTTP/1.1", "Host: a"))
    assert (head.method, target) == ("CONNECT", "a:443")


def test_proxy_fields_go_and_every_other_byte_stays():
    raw = b"POST /Proxy-X: HTTP/1.1\r\nhOsT:  a \r\nProxy-Authorization: Basic x\r\nPROXY-Odd:a\r\n folded\r\nX: Proxy-y: z\r\nproxy-connection: k\r\n\r\n"
    assert without_proxy_fields(raw) == b"POST /Proxy-X: HTTP/1.1\r\nhOsT:  a \r\nX: Proxy-y: z\r\n\r\n"
    assert has_proxy_fields(raw)
    assert not has_proxy_fields(without_proxy_fields(raw))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ("GET http://h/p?q HTTP/1.1", "Host: h", "Proxy-Authorization: Basic x", "X: y"),
            ("GET /p?q HTTP/1.1", "Host: h", "X: y"),
        ),
        (("GET http://h:81 HTTP/1.1", "host: other", "X: y"), ("GET / HTTP/1.1", "Host: h:81", "X: y")),
        (("GET http://h/ HTTP/1.0", "X: y"), ("GET / HTTP/1.0", "Host: h", "X: y")),
        (
            ("GET http://h/ HTTP/1.1", "Keep: me", "Host: h", "TE: trailers", "X-Hop: 1", "Connection: te, x-hop, keep-alive"),
            ("GET / HTTP/1.1", "Keep: me", "Host: h", "Connection: te, x-hop, keep-alive"),
        ),
        (
            ("POST http://h/ HTTP/1.1", "Content-Length: 3", "Host: h", "Connection: content-length, host, connection"),
            ("POST / HTTP/1.1", "Content-Length: 3", "Host: h", "Connection: content-length, host, connection"),
        ),
    ],
)
def test_a_plain_request_as_its_origin_expects_it(lines, expected):
    raw = request(*lines)
    head, target = parse_request(raw)
    assert for_origin(raw, head, target) == request(*expected)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (("GET / HTTP/1.1",), True),
        (("GET / HTTP/1.1", "Connection: Keep-Alive"), True),
        (("GET / HTTP/1.1", "Connection: x, Close"), False),
        (("GET / HTTP/1.0", "Connection: keep-alive"), False),
    ],
)
def test_who_keeps_a_connection(lines, kept):
    assert keeps_alive(read_request(request(*lines))[0]) is kept


def test_an_answer_is_short_plain_and_says_its_length():
    answer = plain_answer(502, "Bad Gateway", "no", "X-A: b", close=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"aiproxyd: no\n"
    response = read_response(head + b"\r\n\r\n")
    assert response.status_code == 502
    assert response.headers.first("content-length") == str(len(body))
    assert response.headers.first("content-type") == "text/plain; charset=utf-8"
    assert response.headers.first("x-a") == "b"
    assert response.headers.first("connection") == "close"
    assert b"Connection" not in plain_answer(403, "Forbidden", "no")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_head_or_refused(raw):
    for read in (read_request, read_response, parse_request):
        try:
            read(raw)
        except (Unfollowable, MalformedBody):
            pass


def test_reading_is_linear_in_the_length_of_a_head():
    # Nested repetition is where a regular expression may take exponential time; this one must not notice.
    with pytest.raises(Unfollowable):
        read_request(b"GET / HTTP/1.1\r\n" + b"X: " + b" \r\n " * 20000 + b"\x00\r\n\r\n")
    with pytest.raises(Unfollowable):
        read_request(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\x00\r\n\r\n")


def test_named_fields_are_taken_off_with_their_folds_and_all_else_stays():
    raw = request(
        "GET /x-team: HTTP/1.1", "X-Team: a", "x-teams: b", "X-TEAM:c", "  folded", "\tmore", "Other:  x-team: d", "x-team:"
    )
    head, _ = read_request(raw)
    assert head.headers.has_any(frozenset({"x-team"}))
    assert not head.headers.has_any(frozenset({"x-tea", "x"}))
    assert without_fields(raw, {"x-team"}) == request("GET /x-team: HTTP/1.1", "x-teams: b", "Other:  x-team: d")
