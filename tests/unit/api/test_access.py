"""Twin of aiproxyd/api/access.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.api import access
from aiproxyd.api.access import AdminToken, PageSessions, Role, caller_of_header, caller_of_token, digest_of, opens_metrics

TOKENS = [AdminToken(role.value, digest_of(f"{role}-token"), role) for role in Role]


def test_each_role_may_do_what_the_one_before_may() -> None:
    assert [[role.includes(other) for other in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        ("Bearer auditor-token", "auditor"),
        ("bearer  auditor-token ", "auditor"),
        ("Bearer admin-token", "admin"),
        ("Basic auditor-token", None),
        ("auditor-token", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        ("Bearer auditor-tokenx", None),
        ("Bearer caf\xe9", None),
        ("Bearer \udcff", None),
    ],
)
def test_only_a_whole_token_names_a_caller(authorization: str, name: str | None) -> None:
    caller = caller_of_header(authorization, TOKENS)
    assert (caller.name if caller else None) == name


def test_a_session_lets_its_caller_in_until_the_token_is_gone() -> None:
    sessions = PageSessions()
    caller = caller_of_token("viewer-token", TOKENS)
    assert caller is not None
    cookie = sessions.cookie(caller)
    assert sessions.caller(cookie, TOKENS) == caller
    assert sessions.caller(cookie, TOKENS[1:]) is None, "revoked by a reload"
    assert PageSessions().caller(cookie, TOKENS) is None, "of another start"
    assert "viewer-token" not in cookie


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "SESSION_SECONDS", -1)
    sessions = PageSessions()
    cookie = sessions.cookie(caller_of_token("viewer-token", TOKENS))  # type: ignore[arg-type]
    assert sessions.caller(cookie, TOKENS) is None


def test_a_cookie_cannot_be_altered_and_a_form_token_is_no_cookie() -> None:
    sessions = PageSessions()
    cookie = sessions.cookie(caller_of_token("viewer-token", TOKENS))  # type: ignore[arg-type]
    body, _, signature = cookie.rpartition(".")
    forged = body.replace(TOKENS[0].sha256, TOKENS[2].sha256)
    assert sessions.caller(f"{forged}.{signature}", TOKENS) is None
    assert sessions.caller(f"{forged}.{sessions.form_token(forged)}", TOKENS) is None


@given(st.text())
def test_any_text_is_no_cookie(text: str) -> None:
    assert PageSessions().caller(text, TOKENS) is None


def test_a_form_token_is_that_of_its_session() -> None:
    sessions = PageSessions()
    assert sessions.is_form_token(sessions.form_token("a"), "a")
    assert not sessions.is_form_token(sessions.form_token("a"), "b")
    assert not sessions.is_form_token("", "a")


def test_metrics_are_opened_by_their_own_credentials() -> None:
    credentials = ("Bearer scrape", "Basic dTpw")
    assert [opens_metrics(value, credentials) for value in ("bearer scrape", "BASIC  dTpw", "Bearer dTpw", "")] == [
        True,
        True,
        False,
        False,
    ]
