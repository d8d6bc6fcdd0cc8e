"""Fields of forms, and what an attacker may send for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.providers.forms import MAX_PARTS, MAX_VALUE_BYTES, form_fields

TYPE = "multipart/form-data; boundary=XX"


def part(disposition: str, value: bytes, more: str = "") -> bytes:
    return f"--XX\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n".encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (form(), {}),
        (b"", {}),
        (form(part('name="model"', b"whisper-1")), {"model": "whisper-1"}),
        (form(part('name="model"', b"a"), part('name="model"', b"b")), {"model": "b"}),
        (form(part('name="other"', b"a"), part('name="model"', b"")), {"model": ""}),
        (form(part('name="file"; filename="x"', b"--X\r\n\x00"), part('name="model"', b"m")), {"model": "m"}),
        (form(part('name="model"; filename="model"', b"no")), {}),
        (form(part("filename*=UTF-8''x; name=\"model\"", b"no")), {}),
        (form(part('name="model"', b"m", "Content-Type: text/plain\r\n")), {"model": "m"}),
        (form(part('name="prompt"', "two\r\nlines é".encode())), {"prompt": "two\r\nlines é"}),
        (form(part('name="model"', b"\xff")), {"model": "\ufffd"}),
        (b"preamble\r\n" + form(part('name="model"', b"m")) + b"epilogue", {"model": "m"}),
        (part('name="model"', b"cut")[:-2], {"model": "cut"}),
        (form(part("attachment", b"m")), {}),
        (b'--XX\r\nContent-Disposition: form-data; name="model"\r\n--XX--', {}),
        (b"--XX", {}),
    ],
)
def test_fields_that_are_no_files_are_read(body: bytes, fields: dict[str, str]) -> None:
    assert form_fields(body, TYPE, ("model", "prompt")) == fields


@pytest.mark.parametrize(
    ("content_type", "is_read"),
    [
        ("multipart/form-data; boundary=XX", True),
        ('multipart/form-data; charset=utf-8; BOUNDARY="XX"', True),
        ("multipart/form-data", False),
        ("multipart/form-data; boundary=", False),
        ("", False),
    ],
)
def test_the_content_type_names_the_boundary(content_type: str, is_read: bool) -> None:
    body = form(part('name="model"', b"m"))
    assert form_fields(body, content_type, ("model",)) == ({"model": "m"} if is_read else {})


def test_long_values_are_cut_and_parts_beyond_the_limit_are_not_read() -> None:
    assert len(form_fields(form(part('name="prompt"', b"x" * (1 << 20))), TYPE, ("prompt",))["prompt"]) == MAX_VALUE_BYTES
    many = [part('name="a"', b"") for _ in range(MAX_PARTS)]
    assert form_fields(form(*many, part('name="model"', b"m")), TYPE, ("model",)) == {}
    assert form_fields(form(*many[1:], part('name="model"', b"m")), TYPE, ("model",)) == {"model": "m"}


def test_a_part_whose_head_has_no_end_is_passed_over() -> None:
    assert form_fields(form(b"--XX\r\n" + b"x" * 5000, part('name="model"', b"m")), TYPE, ("model",)) == {}
    endless = b"--XX\r\n" + b"x" * 5000 + b"\r\n"
    assert form_fields(form(endless, part('name="model"', b"m")), TYPE, ("model",)) == {"model": "m"}


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"--XX", b"\r\n", b"\r\n\r\n", b'; name="model"']), max_size=20))
def test_no_form_is_too_strange(pieces: list[bytes]) -> None:
    assert set(form_fields(b"".join(pieces), TYPE, ("model",))) <= {"model"}
