import pytest

from aiproxyd.credentials import (
    BYOK_DISABLED,
    CREDENTIAL_HEADERS,
    HeadEdit,
    decide,
    edit_with,
    hint_of,
    without_query_key,
    without_token,
)
from aiproxyd.model.credential import CredentialKind, UpstreamKey
from aiproxyd.model.head import Headers, RequestHead

OWN = "sk-ant-own-key-of-the-user"
TOKEN = "token-of-the-proxy"


def decision(*fields, target="/v1/messages", has_keys=True, byok=True, takes_key=True):
    return decide(
        RequestHead("POST", target, Headers(fields)),
        has_keys=has_keys,
        byok=byok,
        takes_key=takes_key,
        is_own_token=lambda credential: credential == TOKEN,
    )


OWN_CREDENTIALS = [
    ("x-api-key", OWN),
    ("authorization", f"Bearer {OWN}"),
    ("authorization", OWN),
    ("api-key", OWN),
    ("x-goog-api-key", OWN),
    ("authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host"),
]
NO_CREDENTIALS = [
    ("user-agent", "x"),
    ("x-api-key", ""),
    ("x-api-key", "aiproxyd"),
    ("authorization", "Bearer aiproxyd"),
    ("authorization", f"Bearer {TOKEN}"),
    ("authorization", f"bearer  {TOKEN} "),
    ("x-goog-api-key", TOKEN),
    ("authorization", "AWS4-HMAC-SHA256 Credential=aiproxyd/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host"),
]


@pytest.mark.parametrize("field", OWN_CREDENTIALS)
def test_a_user_with_an_own_key_keeps_it(field):
    for has_keys in (True, False):
        made = decision(field, has_keys=has_keys)
        assert made.kind is CredentialKind.BYOK
        assert not made.uses_pool
        assert made.edit.is_empty
        assert not made.refusal


@pytest.mark.parametrize("field", NO_CREDENTIALS)
def test_a_user_without_one_gets_a_key_of_the_entry(field):
    made = decision(field)
    assert made.kind is CredentialKind.CENTRALIZED
    assert made.uses_pool


@pytest.mark.parametrize("field", OWN_CREDENTIALS + NO_CREDENTIALS)
def test_without_byok_the_entry_s_key_takes_the_place_of_any_other(field):
    made = decision(field, byok=False)
    assert made.uses_pool
    assert made.kind is CredentialKind.CENTRALIZED


def test_without_byok_who_asks_for_it_is_refused():
    made = decision(("x-coder-ai-governance-token", "x"), ("x-api-key", OWN), byok=False)
    assert made.refusal == BYOK_DISABLED
    assert not made.uses_pool


def test_without_byok_and_without_keys_an_own_key_is_refused():
    assert decision(("x-api-key", OWN), byok=False, has_keys=False).refusal == BYOK_DISABLED
    assert not decision(("user-agent", "x"), byok=False, has_keys=False).refusal, "there is nothing to refuse"


def test_the_token_of_the_proxy_never_leaves():
    made = decision(("authorization", f"Bearer {TOKEN}"), ("x-api-key", OWN), has_keys=False)
    assert made.kind is CredentialKind.BYOK
    assert made.edit == HeadEdit(remove=frozenset({"authorization"}))
    assert decision(target=f"/v1beta/models?key={TOKEN}", has_keys=False).edit.removes_query_key


def test_a_request_that_is_forwarded_as_it_came_loses_the_token_alone():
    fields = [("authorization", f"Bearer {TOKEN}"), ("x-api-key", OWN), ("x-goog-api-key", TOKEN), ("x-note", TOKEN)]
    edit = without_token(RequestHead("POST", f"/v1?a=1&key={TOKEN}", Headers(fields)), TOKEN)
    assert edit == HeadEdit(remove=frozenset({"authorization", "x-goog-api-key"}), removes_query_key=True)
    assert without_token(RequestHead("POST", f"/v1?key={OWN}", Headers([("x-api-key", OWN)])), TOKEN).is_empty


def test_a_key_in_the_query_is_one():
    assert not decision(target="/v1beta/models/g:generateContent?alt=sse&key=AIzaOwn").uses_pool
    assert decision(target="/v1beta/models/g:generateContent?alt=sse&key=").uses_pool
    assert decision(target="/v1beta/models/g:generateContent?monkey=AIzaOwn").uses_pool


def test_the_entry_s_key_does_not_go_where_nobody_knows_what_it_does():
    """A user would otherwise delete the organisation's files with it."""
    made = decision(("authorization", f"Bearer {TOKEN}"), target="/v1/organization/admin_api_keys", takes_key=False)
    assert not made.uses_pool
    assert made.edit.remove == {"authorization"}
    assert decision(("x-api-key", OWN), byok=False, takes_key=False).refusal == BYOK_DISABLED


@pytest.mark.parametrize(
    ("provider_type", "field"),
    [
        ("anthropic", ("x-api-key", "k")),
        ("azure", ("api-key", "k")),
        ("google", ("x-goog-api-key", "k")),
        ("openai", ("authorization", "Bearer k")),
        ("bedrock", ("authorization", "Bearer k")),
        ("openai-compat", ("authorization", "Bearer k")),
    ],
)
def test_each_type_has_its_header(provider_type, field):
    edit = edit_with(UpstreamKey("k"), provider_type)
    assert edit.add == (field,)
    assert edit.remove >= {*CREDENTIAL_HEADERS, "x-amz-security-token", "x-coder-ai-governance-token"}
    assert edit.removes_query_key


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a", "/a"),
        ("/a?key=1", "/a"),
        ("/a?alt=sse&key=1", "/a?alt=sse"),
        ("/a?key=1&alt=sse&key=2", "/a?alt=sse"),
        ("/a?monkey=1&keyx=2", "/a?monkey=1&keyx=2"),
        ("/a?x=%20+&&y", "/a?x=%20+&&y"),
    ],
)
def test_the_rest_of_a_query_stays_as_it_is_written(target, expected):
    assert without_query_key(target) == expected


def test_nothing_that_holds_a_key_shows_it():
    key = UpstreamKey("sk-ant-api03-abcdefgh")
    assert "abcdefgh" not in repr(key) + repr(edit_with(key, "anthropic")) + repr(edit_with(key, "openai"))
    assert hint_of(key) == "sk-a...efgh"
    aws = UpstreamKey("topsecret", access_key_id="AKIDEXAMPLE", session_token="sessionsecret")
    assert hint_of(aws) == "AK...LE"
    assert "secret" not in repr(aws)
