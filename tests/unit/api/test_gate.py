"""Twin of aiproxyd/api/gate.py: what is not seen through the application."""

import pytest

from aiproxyd.api.gate import is_local_name, is_own_page

HOST = {"host": "127.0.0.1:8889"}


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://127.0.0.1:8889"}, True),
        ({"origin": "http://127.0.0.1:9999"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://[::1"}, False),
    ],
)
def test_a_change_comes_from_our_own_page_or_from_no_page(fields: dict[str, str], answer: bool) -> None:
    assert is_own_page(HOST | fields) is answer


def test_a_name_of_a_foreign_zone_is_not_local() -> None:
    assert not is_local_name("127.0.0.1.evil.example")
