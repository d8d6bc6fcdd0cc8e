import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.redaction import HIDDEN, SENSITIVE_HEADERS, Secrets, credential_hint, mask, sensitive_values, without_credentials


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("", ""),
        ("a", "..."),
        ("four", "..."),
        ("short", "s...t"),
        ("ninechars", "n...s"),
        ("tencharact", "te...ct"),
        ("thisisquitelong", "th...ng"),
        ("sk-ant-api03-abcdefgh", "sk-a...efgh"),
        ("schlüssel-mit-ümlauten", "schl...uten"),
    ],
)
def test_a_mask_shows_as_much_as_coders(secret: str, hint: str) -> None:
    assert mask(secret) == hint


@given(st.text(min_size=1))
def test_a_mask_is_short_and_hides_at_least_half_of_a_long_secret(secret: str) -> None:
    hint = mask(secret)
    assert "..." in hint
    assert len(hint) <= 11
    assert len(hint) - 3 <= max(len(secret) // 2, 0)


@pytest.mark.parametrize(
    ("fields", "target", "hint"),
    [
        ([], "/v1/messages", ""),
        ([("x-api-key", "sk-ant-api03-abcdefgh")], "/", "sk-a...efgh"),
        ([("Authorization", "Bearer sk-ant-oat01-0123456789")], "/", "sk-a...6789"),
        ([("Authorization", "bearer   sk-proj-0123456789abc ")], "/", "sk-p...9abc"),
        ([("Authorization", "token-without-scheme-here")], "/", "toke...here"),
        ([("api-key", "0123456789abcdef")], "/", "01...ef"),
        ([("x-goog-api-key", "AIzaSyA-0123456789-abcdef")], "/", "AIza...cdef"),
        ([("x-api-key", " "), ("authorization", "Bearer tencharact")], "/", "te...ct"),
        ([("x-api-key", "of-the-key-header"), ("authorization", "Bearer placeholder")], "/", "of...er"),
        ([], "/v1beta/models/m:generateContent?alt=sse&key=AIzaSyA-0123456789-abcdef", "AIza...cdef"),
        ([], "/?" + "a=1&" * 5000 + "key=AIza%53yA-0123456789-abcdef", "AIza...cdef"),
        ([], "/v1?monkey=banana", ""),
    ],
)
def test_the_hint_is_of_the_credential_the_provider_sees(fields: list[tuple[str, str]], target: str, hint: str) -> None:
    assert credential_hint(RequestHead("POST", target, Headers(fields))) == hint


@pytest.mark.parametrize(
    ("fields", "target", "hint"),
    [
        ([("authorization", "Bearer aip_0123456789abcdef")], "/", ""),
        ([("x-api-key", "aip_0123456789abcdef")], "/", ""),
        ([], "/?key=aip_0123456789abcdef", ""),
        ([("x-api-key", "aip_0123456789abcdef"), ("authorization", "Bearer sk-proj-0123456789abc")], "/", "sk-p...9abc"),
    ],
)
def test_the_client_s_token_of_this_proxy_is_no_hint(fields: list[tuple[str, str]], target: str, hint: str) -> None:
    assert credential_hint(RequestHead("POST", target, Headers(fields)), "aip_0123456789abcdef") == hint


SENTENCE = "Incorrect credential provided: {}. See https://example.com/help for more."


@pytest.mark.parametrize(
    ("name", "value", "repeated"),
    [
        ("x-api-key", "an-api-key-0123", "an-api-key-0123"),
        ("authorization", "Bearer an-api-key-0123", "an-api-key-0123"),
        ("authorization", "Bearer an-api-key-0123", "Bearer an-api-key-0123"),
        ("authorization", "Basic bWU6c2VjcmV0MTIz", "bWU6c2VjcmV0MTIz"),
        ("authorization", 'AWS4-HMAC-SHA256 Credential=AKIDEX/2026/x, Signature="0123abcdef99"', "0123abcdef99"),
        ("cookie", "theme=dark; session=0123456789ab", "0123456789ab"),
        ("x-goog-api-key", "goog-key-0123", "goog-key-0123"),
        ("x-amz-security-token", "session-token", "session-token"),
    ],
)
def test_an_error_that_repeats_a_credential_is_kept_without_it(name: str, value: str, repeated: str) -> None:
    assert name in SENSITIVE_HEADERS
    head = RequestHead("POST", "/v1/messages", Headers([("user-agent", "tool/1.0-of-some-length"), (name, value)]))
    kept = without_credentials(SENTENCE.format(repeated), sensitive_values(head))
    assert repeated.rpartition(" ")[2] not in kept
    assert HIDDEN in kept
    assert kept.endswith("See https://example.com/help for more.")
    assert without_credentials("tool/1.0-of-some-length", sensitive_values(head)) == "tool/1.0-of-some-length"


@pytest.mark.parametrize("repeated", ["a%2Fkey%3D0123", "a/key=0123"])
def test_a_key_of_the_query_is_hidden_as_it_was_written_and_as_it_was_meant(repeated: str) -> None:
    head = RequestHead("POST", "/v1beta/models/g:generateContent?alt=sse-stream&Key=a%2Fkey%3D0123", Headers())
    assert repeated not in without_credentials(SENTENCE.format(repeated), sensitive_values(head))
    assert without_credentials("alt=sse-stream", sensitive_values(head)) == "alt=sse-stream"


def test_words_that_are_no_secret_stay() -> None:
    head = RequestHead("POST", "/", Headers([("cookie", "theme=dark; lang=de"), ("authorization", "Bearer short")]))
    sentence = "the dark theme is de luxe, and short"
    assert without_credentials(sentence, sensitive_values(head)) == sentence
    assert sensitive_values(RequestHead("GET", "/?", Headers())) == ()


@given(st.text("abcdefgh0123456789-_", min_size=8, max_size=60), st.text(max_size=40), st.text(max_size=40))
def test_no_credential_survives_in_any_text(secret: str, before: str, behind: str) -> None:
    head = RequestHead("POST", f"/?key={secret}", Headers([("x-api-key", secret)]))
    assert secret not in without_credentials(before + secret + behind, sensitive_values(head)).replace(HIDDEN, "")


def test_secrets_that_are_known_and_forms_of_secrets_are_hidden() -> None:
    secrets = Secrets()
    secrets.replace(["open sesame", "short"])
    secrets.add("open sesame and more")
    hidden = secrets.hide("open sesame and more, open sesame, short, sk-ant-api03-0123456789abcdef, https://me:pw@host")
    assert hidden == f"{HIDDEN}, {HIDDEN}, short, {HIDDEN}, https://{HIDDEN}@host"
    secrets.replace(())
    assert secrets.hide("open sesame") == "open sesame"
