"""Header fields are found without regard to case, in order, and do not show their values."""

from aiproxyd.model.head import Headers, RequestHead, ResponseHead

FIELDS = Headers([("Content-Type", "a"), ("X-Key", "secret"), ("content-type", "b, C"), ("Via", "")])


def test_fields_are_found():
    assert FIELDS.first("content-type") == "a"
    assert FIELDS.first("absent") is None
    assert FIELDS.all("content-type") == ["a", "b, C"]
    assert FIELDS.all("absent") == []
    assert FIELDS.tokens("content-type") == ["a", "b", "c"]
    assert FIELDS.tokens("via") == []
    assert "via" in FIELDS
    assert "absent" not in FIELDS
    assert len(FIELDS) == 4
    assert next(iter(FIELDS)) == ("content-type", "a")


def test_equal_fields_are_equal():
    assert Headers([("A", "1")]) == Headers([("a", "1")])
    assert hash(Headers([("A", "1")])) == hash(Headers([("a", "1")]))
    assert Headers() != ()


def test_a_target_is_cut_into_path_and_query():
    head = RequestHead("POST", "/v1/messages?beta=true", FIELDS)
    assert (head.path, head.query) == ("/v1/messages", "beta=true")


def test_a_secret_in_a_field_does_not_show():
    assert "secret" not in repr(FIELDS)
    assert "secret" not in repr(RequestHead("GET", "/?key=secret", FIELDS))
    assert repr(ResponseHead(200, FIELDS)) == "ResponseHead(200)"
