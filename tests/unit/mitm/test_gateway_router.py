"""The reverse listener: whose request it is, where it goes, and whose key it carries, by the rules of Coder's gateway."""

import asyncio
import json

import msgspec
import pytest

from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.config.keys import upstream_rules
from aiproxyd.config.providers import provider_table
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.gateway_router import path_of, token_of
from aiproxyd.model.authority import Authority
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.model.principal import Principal
from aiproxyd.upstream import Target, UpstreamRules
from tests.unit.mitm.stage import PROVIDER, PROVIDER_HOST, read_response, stage

LOOPS = "both"

KEY = "sk-ant-organisation-0123456789"
BASE = Target("https", Authority(PROVIDER_HOST, 443), "")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Users:
    async def authenticate(self, credential):
        if credential == "broken":
            raise AiproxydError("nobody is there")
        return Principal(id="1", name="ada") if credential == "ada-token" else None


def rules(*keys, **values):
    return UpstreamRules("anthropic", "anthropic", keys=tuple(UpstreamKey(key) for key in keys), base=BASE, **values)


class Heads:
    def __init__(self):
        self.heads = []

    async def __call__(self, reader, writer):
        while True:
            raw = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(raw)
            length = [int(line.partition(b":")[2]) for line in raw.lower().split(b"\r\n") if line.startswith(b"content-length")]
            await reader.readexactly(sum(length))
            writer.write(OK)

    def fields(self, index=-1):
        lines = self.heads[index].split(b"\r\n")[1:-2]
        return [(name.lower().decode(), value.strip().decode()) for name, _, value in (line.partition(b":") for line in lines)]


async def ask(s, path="/anthropic/v1/messages", method="POST", **fields):
    reader, writer = await asyncio.open_connection("127.0.0.1", s.gateway_port)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: gateway\r\n{lines}Content-Length: 2\r\n\r\n{{}}".encode())
    answer = await read_response(reader)
    writer.close()
    return int(answer.split(b" ")[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("fields", [{"authorization": "Bearer ada-token"}, {"x_api_key": "ada-token"}])
async def test_a_client_without_a_key_of_its_own_gets_the_entry_s(tmp_path, fields):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY), authenticator=Users()) as s:
        assert await ask(s, path="/anthropic/v1/messages?a=b", **fields) == (200, b"ok")
        assert upstream.heads[0].startswith(b"POST /v1/messages?a=b HTTP/1.1\r\n")
        assert sorted(upstream.fields()) == [("content-length", "2"), ("host", PROVIDER_HOST), ("x-api-key", KEY)]
        (seen,) = s.tap.requests
        assert (seen.head.path, seen.key_hint, seen.request) == ("/v1/messages", "sk-a...6789", b"{}")
        assert seen.connection.principal.name == "ada"
        assert seen.connection.authority.host == PROVIDER_HOST


async def test_with_the_governance_token_a_client_brings_its_own_key(tmp_path):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY), authenticator=Users()) as s:
        fields = {"x_coder_ai_governance_token": "ada-token", "x_api_key": "sk-mine", "authorization": "Bearer mine"}
        assert (await ask(s, **fields))[0] == 200
        assert dict(upstream.fields())["x-api-key"] == "sk-mine"
        assert dict(upstream.fields())["authorization"] == "Bearer mine"
        assert "ada-token" not in str(upstream.heads)
        assert s.tap.requests[0].key_hint is None


async def test_without_the_governance_token_both_credentials_are_taken_off(tmp_path):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY), authenticator=Users()) as s:
        assert (await ask(s, authorization="Bearer ada-token", x_api_key="sk-mine"))[0] == 200
        assert "mine" not in str(upstream.heads)
        # Where nobody knows what it is, the entry's key does not go either.
        assert (await ask(s, path="/anthropic/v1/organizations", authorization="Bearer ada-token", x_api_key="sk-mine"))[
            0
        ] == 200
        assert [name for name, _ in upstream.fields()] == ["host", "content-length"]


async def test_byok_that_is_not_enabled_is_refused(tmp_path):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY, byok=False), authenticator=Users()) as s:
        status, body = await ask(s, x_coder_ai_governance_token="ada-token", x_api_key="sk-mine")
        assert status == 403
        assert json.loads(body)["error"]["message"] == "Bring Your Own Key (BYOK) mode is not enabled."
        assert not upstream.heads


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 400, "no authentication key provided"),
        ({"authorization": "Basic YTpi"}, 400, "no authentication key provided"),
        ({"x_api_key": "wrong"}, 403, "unauthorized"),
        # The first one there is, whatever the others are.
        ({"x_coder_ai_governance_token": "wrong", "x_api_key": "ada-token"}, 403, "unauthorized"),
        ({"x_api_key": "broken"}, 503, "credentials cannot be checked right now; try again in a moment"),
    ],
)
async def test_nobody_is_served_whose_credential_is_not_known(tmp_path, fields, status, message):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY), authenticator=Users()) as s:
        got, body = await ask(s, **fields)
        assert (got, json.loads(body)["error"]["message"]) == (status, message)
        assert not upstream.heads
        assert not s.tap.requests


@pytest.mark.parametrize("path", ["/nobody/v1/messages", "/", "/anthropic"])
async def test_what_is_no_provider_is_a_404(tmp_path, path):
    async with stage(tmp_path, Heads(), rules=rules(KEY), authenticator=Users()) as s:
        status, body = await ask(s, path=path, x_api_key="ada-token")
        expected = (200, b"ok") if path == "/anthropic" else (404, None)
        assert status == expected[0]
        if status == 404:
            assert f"route not supported: POST {path}" in body.decode()


async def test_a_provider_out_of_use_is_a_404(tmp_path):
    async with stage(tmp_path, Heads(), rules=rules(KEY), authenticator=Users()) as s:
        s.front.replace_providers(ProviderTable([msgspec.structs.replace(PROVIDER, status=ProviderStatus.DISABLED)]))
        assert (await ask(s, x_api_key="ada-token"))[0] == 404


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"origin": "https://news.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "none"}, 200),
        ({}, 200),
    ],
)
async def test_a_web_page_is_not_served_where_nobody_is_asked_for_credentials(tmp_path, fields, status):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY)) as s:
        assert (await ask(s, **fields))[0] == status
        assert len(upstream.heads) == (status == 200)
    async with stage(tmp_path, upstream, rules=rules(KEY), authenticator=Users()) as s:
        assert (await ask(s, authorization="Bearer ada-token", **fields))[0] == 200


async def test_where_nobody_is_asked_for_credentials_they_are_the_provider_s(tmp_path):
    upstream = Heads()
    async with stage(tmp_path, upstream, rules=rules(KEY)) as s:
        assert (await ask(s, x_api_key="sk-mine"))[0] == 200
        assert (await ask(s))[0] == 200
        assert [dict(upstream.fields(index))["x-api-key"] for index in range(2)] == ["sk-mine", KEY]
        assert [seen.connection.principal.name for seen in s.tap.requests] == ["anonymous"] * 2


async def test_what_cannot_be_recorded_is_refused_where_the_operator_wants_that(tmp_path):
    async with stage(tmp_path, Heads(), rules=rules(KEY), authenticator=Users()) as s:
        s.front.is_refusing = lambda: True
        assert (await ask(s, x_api_key="ada-token"))[0] == 503


async def test_a_revoked_user_s_open_request_is_closed(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await reader.read()

    async with stage(tmp_path, upstream, rules=rules(KEY), authenticator=Users()) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.gateway_port)
        writer.write(b"POST /anthropic/v1/messages HTTP/1.1\r\nx-api-key: ada-token\r\nContent-Length: 2\r\n\r\n{}")
        await reader.readuntil(b"hi\r\n")
        s.front.revoke({"another"})
        assert not s.tap.requests[0].is_over
        s.front.revoke({"1"})
        assert s.tap.requests[0].aborted is AbortedBy.PROXY
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_target_gets_the_provider_s_name_and_the_client_s_path(tmp_path):
    upstream = Heads()
    target = Target("https", Authority(PROVIDER_HOST, 443), "/gw")
    async with stage(tmp_path, upstream, rules=rules(target=target), authenticator=Users()) as s:
        assert (await ask(s, path="/anthropic/v1/messages?q", authorization="Bearer ada-token"))[0] == 200
        assert upstream.heads[0].startswith(b"POST /gw/anthropic/v1/messages?q HTTP/1.1\r\n")
        assert dict(upstream.fields())["authorization"] == "Bearer ada-token"
        assert s.tap.requests[0].head.path == "/v1/messages"


def test_the_token_stands_in_three_places_in_this_order():
    places = [("x-coder-ai-governance-token", "a"), ("authorization", "bearer b"), ("x-api-key", " c ")]
    tokens = []
    while places:
        tokens.append(token_of(RequestHead("GET", "/", Headers(reversed(places)))))
        places.pop(0)
    assert tokens == ["a", "b", "c"]
    assert token_of(RequestHead("GET", "/", Headers([("authorization", "Basic b")]))) == ""


@pytest.mark.parametrize(
    ("entry", "rest", "path"),
    [
        ({"type": "anthropic"}, "/v1/messages", "/v1/messages"),
        ({"type": "anthropic", "base_url": "https://a.example/api"}, "/v1/messages", "/api/v1/messages"),
        ({"type": "openai"}, "/v1/chat/completions", "/v1/chat/completions"),
        ({"type": "openai", "base_url": "https://a.example/v1"}, "/v1/responses", "/v1/responses"),
        ({"type": "openai", "base_url": "https://a.example/api"}, "/v1/chat/completions", "/api/chat/completions"),
        (
            {"type": "openrouter", "base_url": "https://openrouter.ai/api/v1"},
            "/v1/chat/completions",
            "/api/v1/chat/completions",
        ),
        # As a proxy that leaves the path alone writes it.
        (
            {"type": "openrouter", "base_url": "https://openrouter.ai/api/v1"},
            "/api/v1/chat/completions",
            "/api/v1/chat/completions",
        ),
        ({"type": "openai-compat", "base_url": "http://localhost:1234/x/openai"}, "/v1/models", "/x/openai/models"),
        ({"type": "chatgpt"}, "/v1/responses", "/backend-api/codex/responses"),
        ({"type": "copilot"}, "/chat/completions", "/chat/completions"),
        ({"type": "openai"}, "/v1/nobody/knows", "/v1/nobody/knows"),
    ],
)
def test_the_path_at_the_provider_is_the_first_spelling_that_it_knows(entry, rest, path):
    config = Config.model_validate({"providers": [{"name": "it", **entry}]})
    (provider,) = provider_table(config).providers
    base = upstream_rules(config, {})["it"].base
    method = "GET" if rest.endswith("models") else "POST"
    assert path_of(provider, base, method, rest) == path


@pytest.mark.parametrize(
    ("entry", "base"),
    [
        ({"type": "anthropic"}, ("https", "api.anthropic.com", 443, "")),
        ({"type": "copilot"}, ("https", "api.individual.githubcopilot.com", 443, "")),
        ({"type": "openai", "base_url": "http://localhost:1234/v1/"}, ("http", "localhost", 1234, "/v1")),
        ({"type": "openai", "hosts": ["*.example", "a.example:8443"]}, ("https", "a.example", 8443, "")),
        ({"type": "azure"}, None),
        ({"type": "bedrock"}, None),
    ],
)
def test_the_base_of_an_entry_is_its_base_url_or_its_first_whole_host(entry, base):
    found = upstream_rules(Config.model_validate({"providers": [{"name": "it", **entry}]}), {})["it"].base
    assert (found and (found.scheme, *found.authority, found.path)) == base


@pytest.mark.parametrize(
    ("mode", "address", "is_allowed"),
    [
        ("off", "127.0.0.1:1", True),
        ("off", "[::1]:1", True),
        ("off", "0.0.0.0:1", False),
        ("off", ":1", False),
        ("required", ":1", True),
    ],
)
def test_a_listener_for_everybody_asks_for_credentials(mode, address, is_allowed):
    values = {"auth": {"mode": mode}, "listen_gateway": address}
    if is_allowed:
        assert Config.model_validate(values).listen_gateway == (address,)
    else:
        with pytest.raises(ValueError, match="listen_gateway"):
            Config.model_validate(values)
