"""Tokens that an identity provider signed, with real keys, and everything that may be wrong with one."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest

from aiproxyd.config.identity import JwtAuthConfig
from aiproxyd.exceptions import ConfigError
from aiproxyd.identity import key_set
from aiproxyd.identity.answer import SourceUnavailable
from aiproxyd.identity.signed_tokens import SignedTokens, is_signed_token
from aiproxyd.model.principal import id_of_name
from tests.support.identity_service import AUDIENCE, ISSUER, IdentityService, Signer

RSA, EC, ED = Signer("rsa"), Signer("ec", "ES256"), Signer("ed", "EdDSA")

FIRST_OF_2020, FIRST_OF_2100 = 1_577_836_800, 4_102_444_800


@pytest.fixture
def checker(tmp_path):
    def make(*signers, **settings):
        file = tmp_path / "keys.json"
        file.write_text(json.dumps({"keys": [signer.public for signer in signers]}))
        return SignedTokens(JwtAuthConfig(issuer=ISSUER, audience=AUDIENCE, jwks_file=file, **settings))

    return make


@pytest.mark.parametrize("signer", [RSA, EC, ED], ids=lambda signer: signer.algorithm)
async def test_a_good_token_is_its_users(checker, signer):
    token = signer.token("carol", groups=["eng", "eng", "ops", 7, ""])
    assert is_signed_token(token)
    answer = await checker(RSA, EC, ED).identify(token)
    assert answer.principal.name == "carol"
    assert answer.principal.id == id_of_name("carol")
    assert answer.principal.groups == ("eng", "ops")
    assert answer.principal.evidence == "jwt"
    assert 600 < answer.fresh_seconds <= 630


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example.com"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": ["another-service", "a-third"]},
        {"aud": None},
        {"exp": FIRST_OF_2020},
        {"exp": None},
        {"exp": "never"},
        {"nbf": FIRST_OF_2100},
        {"preferred_username": None, "sub": None},
        {"preferred_username": "", "sub": ""},
        {"preferred_username": 7, "sub": None},
        {"preferred_username": "a\nb", "sub": None},
        {"preferred_username": "x" * 121, "sub": None},
    ],
    ids=lambda claims: ",".join(claims),
)
async def test_a_token_with_a_claim_that_is_wrong_is_nobodys(checker, claims):
    assert (await checker(RSA).identify(RSA.token(**claims))).principal is None


async def test_clocks_may_differ_a_little(checker):
    late, early = RSA.token(exp=time.time() - 20), RSA.token(nbf=time.time() + 20)
    assert (await checker(RSA).identify(late)).principal is not None
    assert (await checker(RSA).identify(early)).principal is not None
    assert (await checker(RSA, clock_skew_seconds=5).identify(late)).principal is None


async def test_one_of_several_audiences_is_enough(checker):
    assert (await checker(RSA).identify(RSA.token(aud=["other", AUDIENCE]))).principal is not None


async def test_claims_are_those_that_were_configured(checker):
    tokens = checker(RSA, name_claim="email", groups_claim="roles")
    answer = await tokens.identify(RSA.token("carol", email="carol@example.com", roles="one-word"))
    assert (answer.principal.name, answer.principal.groups) == ("carol@example.com", ("one-word",))
    assert (await tokens.identify(RSA.token("carol"))).principal is None
    assert (await checker(RSA).identify(RSA.token(None))).principal.name == "0001"


def _encoded(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def _forged(header, payload, secret=b""):
    signed = f"{_encoded(header)}.{_encoded(payload)}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest() if secret else b"x"
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_forged_tokens_are_nobodys(checker):
    tokens = checker(RSA, EC)
    payload = jwt.decode(RSA.token("root"), options={"verify_signature": False})
    another = Signer("rsa")  # of the same name, with another key
    public_pem = jwt.PyJWK(RSA.public).key.public_bytes(
        __import__("cryptography.hazmat.primitives.serialization", fromlist=["Encoding"]).Encoding.PEM,
        __import__("cryptography.hazmat.primitives.serialization", fromlist=["PublicFormat"]).PublicFormat.SubjectPublicKeyInfo,
    )
    head, body, signature = RSA.token("root").split(".")
    for forged in (
        _forged({"alg": "none", "kid": "rsa"}, payload),
        _forged({"alg": "HS256", "kid": "rsa"}, payload, public_pem),  # the public key as a shared secret
        _forged({"alg": "RS256", "kid": "rsa"}, payload, public_pem),
        another.token("root"),
        jwt.encode(payload, another._private, algorithm="RS256", headers={"kid": "rsa", "jwk": another.public}),
        jwt.encode(payload, another._private, algorithm="RS256", headers={"kid": "rsa", "jku": "https://evil.example.com"}),
        jwt.encode(payload, RSA._private, algorithm="RS256", headers={"kid": "rsa", "crit": ["unknown"]}),
        jwt.encode(payload, RSA._private, algorithm="RS256", headers={"kid": "ec"}),  # a key of another kind
        jwt.encode(payload, RSA._private, algorithm="RS512", headers={"kid": "rsa"}),  # not one of those that are accepted
        f"{head}.{_encoded(payload | {'preferred_username': 'admin'})}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.AAAA",
        "a.b.c",
        "..",
    ):
        assert (await tokens.identify(forged)).principal is None, forged


def test_a_shared_secret_is_no_signature_that_can_be_configured():
    for algorithm in ("HS256", "none"):
        with pytest.raises(ValueError, match="RS256"):
            JwtAuthConfig(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://127.0.0.1/keys", algorithms=[algorithm])


async def test_a_shared_secret_in_a_key_set_is_left_out(tmp_path):
    file = tmp_path / "keys.json"
    secret = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    file.write_text(json.dumps({"keys": [secret, RSA.public, {"kty": "RSA"}, {"kty": "EC", "crv": "new"}, "nonsense"]}))
    tokens = SignedTokens(JwtAuthConfig(issuer=ISSUER, audience=AUDIENCE, jwks_file=file))
    assert (await tokens.identify(RSA.token())).principal is not None
    forged = jwt.encode({"aud": AUDIENCE}, b"secret-secret-secret-secret-secret", algorithm="HS256", headers={"kid": "shared"})
    assert (await tokens.identify(forged)).principal is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys":[]}', b'{"keys":{}}', b'{"keys":[{"kty":"oct","k":"AA"}]}', None]
)
def test_a_file_that_is_no_key_set_is_a_mistake(tmp_path, content):
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"auth.jwt.jwks_file: .*keys.json"):
        SignedTokens(JwtAuthConfig(issuer=ISSUER, audience=AUDIENCE, jwks_file=file))


@pytest.fixture
def service(tmp_path):
    with IdentityService(tmp_path) as service:
        service.keys = [RSA.public]
        yield service


@pytest.fixture
async def remote(service):
    tokens = SignedTokens(
        JwtAuthConfig(issuer=ISSUER, audience=AUDIENCE, jwks_url=f"{service.url}/keys", jwks_ca_file=service.ca_file)
    )
    yield tokens
    await tokens.close()


async def test_keys_are_fetched_once_for_many(service, remote):
    answers = await asyncio.gather(*(remote.identify(RSA.token(f"user-{number}")) for number in range(20)))
    assert all(answer.principal for answer in answers)
    assert service.questions == ["/keys"]


async def test_a_new_key_is_fetched_when_a_token_names_it_but_not_all_the_time(service, remote, monkeypatch):
    assert (await remote.identify(RSA.token())).principal is not None
    fresh = Signer("fresh")
    service.keys.append(fresh.public)
    assert (await remote.identify(fresh.token())).principal is None, "the floor between fetches"
    monkeypatch.setattr(key_set, "FETCH_FLOOR_SECONDS", 0.0)
    assert (await remote.identify(fresh.token())).principal is not None
    monkeypatch.setattr(key_set, "FETCH_FLOOR_SECONDS", 10.0)
    for number in range(50):
        assert (await remote.identify(Signer("x", "EdDSA").token(kid=str(number)))).principal is None
    assert len(service.questions) == 2


async def test_a_provider_that_is_away_is_an_error_until_it_is_back(service, remote, monkeypatch):
    monkeypatch.setattr(key_set, "FETCH_FLOOR_SECONDS", 0.1)
    service.answers_with = 500
    with pytest.raises(SourceUnavailable, match="answered 500"):
        await remote.identify(RSA.token())
    with pytest.raises(SourceUnavailable, match="could not be fetched a moment ago"):
        await remote.identify(RSA.token())
    service.answers_with = b"<html>"
    await asyncio.sleep(0.15)
    with pytest.raises(SourceUnavailable, match="is no key set"):
        await remote.identify(RSA.token())
    service.answers_with = None
    await asyncio.sleep(0.15)
    assert (await remote.identify(RSA.token())).principal is not None


async def test_keys_that_are_known_outlive_a_short_absence_and_not_a_long_one(service, remote, monkeypatch):
    assert (await remote.identify(RSA.token())).principal is not None
    service.answers_with = 500
    monkeypatch.setattr(key_set, "FETCH_FLOOR_SECONDS", 0.0)
    monkeypatch.setattr(key_set, "REFRESH_SECONDS", 0.0)
    assert (await remote.identify(RSA.token())).principal is not None
    await asyncio.sleep(0.2)
    assert len(service.questions) == 2
    monkeypatch.setattr(key_set, "MAX_AGE_SECONDS", 0.0)
    with pytest.raises(SourceUnavailable):
        await remote.identify(RSA.token())


async def test_a_key_that_the_provider_withdrew_is_good_no_more_after_a_fetch(service, remote, monkeypatch):
    assert (await remote.identify(RSA.token())).principal is not None
    service.keys = [Signer("another", "EdDSA").public]
    monkeypatch.setattr(key_set, "MAX_AGE_SECONDS", 0.0)
    monkeypatch.setattr(key_set, "FETCH_FLOOR_SECONDS", 0.0)
    assert (await remote.identify(RSA.token())).principal is None
