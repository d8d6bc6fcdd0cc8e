import base64
import logging

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from aiproxyd.classify import Provider, ProviderStatus, ProviderTable
from aiproxyd.exceptions import AiproxydError
from aiproxyd.mitm.connect import MAX_CREDENTIAL_BYTES, VERDICT, ConnectAddon, ConnectSettings, token_of
from aiproxyd.model.principal import ANONYMOUS, Principal, id_of_name
from aiproxyd.model.verdict import Action, Verdict

ADA = Principal(id=id_of_name("ada"), name="ada")
PROVIDERS = ProviderTable(
    [
        Provider(name="openai", type="openai", authorities=(("api.openai.com", 443),)),
        Provider(name="off", type="openai", authorities=(("off.example", 443),), status=ProviderStatus.DISABLED),
        Provider(
            name="let",
            type="openai",
            authorities=(("let.example", 443),),
            status=ProviderStatus.DISABLED,
            when_disabled="tunnel",
        ),
        Provider(name="local", type="openai-compat", authorities=(("models.example", 8443),)),
    ]
)


class Book:
    """Knows ada's token, and can be out of order."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.asked: list[str] = []

    async def authenticate(self, credential: str) -> Principal | None:
        self.asked.append(credential)
        if self.failure is not None:
            raise self.failure
        return ADA if credential in {"t0ken", "t0:ken"} else None


def basic(text: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(text.encode()).decode()}"


async def connect(
    authority: str, *credentials: str, book: Book | None = None, method: str = "CONNECT", **settings: object
) -> tuple[Verdict, http.Response | None]:
    flow = tflow.tflow(req=http.Request.make(method, "http://example.com/"))
    flow.request.data.method = method.encode()
    flow.request.data.authority = authority.encode()
    for credential in credentials:
        flow.request.headers.add("Proxy-Authorization", credential)
    await ConnectAddon(book or Book(), ConnectSettings(providers=PROVIDERS, **settings)).http_connect(flow)
    return flow.metadata[VERDICT], flow.response


@pytest.mark.parametrize(
    ("authority", "action", "reason", "provider"),
    [
        ("api.openai.com:443", Action.DECRYPT, "provider", "openai"),
        ("API.OpenAI.com.:443", Action.DECRYPT, "provider", "openai"),
        ("models.example:8443", Action.DECRYPT, "provider", "local"),
        ("example.com:443", Action.TUNNEL, "no_provider", ""),
        ("api.openai.com:80", Action.TUNNEL, "no_provider", ""),
        ("[2001:db8::1]:443", Action.TUNNEL, "no_provider", ""),
        ("let.example:443", Action.TUNNEL, "provider_disabled", "let"),
    ],
)
async def test_an_authenticated_connect_gets_the_verdict_of_the_policy(authority, action, reason, provider):
    verdict, response = await connect(authority, basic("x:t0ken"))
    assert (verdict.action, verdict.reason, verdict.provider, verdict.principal) == (action, reason, provider, ADA)
    assert response is None


@pytest.mark.parametrize(
    ("authority", "status", "reason", "word"),
    [
        ("off.example:443", 403, "provider_disabled", "disabled"),
        ("example.com:22", 403, "port", "egress.allowed_ports"),
        ("example.com", 400, "authority", "example.com"),
        ("example.com:", 400, "authority", "host:port"),
        ("example.com:0", 400, "authority", "host:port"),
        ("example.com:65536", 400, "authority", "host:port"),
        ("http://example.com:443", 400, "authority", "host:port"),
        ("user@example.com:443", 400, "authority", "host:port"),
        ("1.2.3:443", 400, "authority", "host:port"),
        ("[::1:443", 400, "authority", "host:port"),
        (":443", 400, "authority", "host:port"),
    ],
)
async def test_a_refusal_says_why_in_plain_text(authority, status, reason, word):
    verdict, response = await connect(authority, basic("x:t0ken"))
    assert (verdict.action, verdict.reason, verdict.status_code) == (Action.REFUSE, reason, status)
    assert response is not None
    assert response.status_code == status
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.startswith("aiproxyd: ")
    assert word in response.text
    assert "proxy-authenticate" not in response.headers


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        ((), "missing_credentials"),
        (("Basic",), "invalid_credentials"),
        (("Basic !!!",), "invalid_credentials"),
        ((basic("no colon"),), "invalid_credentials"),
        ((basic("user:"),), "invalid_credentials"),
        ((basic("user:wrong"),), "invalid_credentials"),
        (("Basic " + base64.b64encode(b"u:\xff\xfe").decode(),), "invalid_credentials"),
        (("Digest t0ken",), "invalid_credentials"),
        (("Bearer wrong",), "invalid_credentials"),
        ((basic("x:t0ken"), basic("x:t0ken")), "invalid_credentials"),
        (("Bearer " + "x" * MAX_CREDENTIAL_BYTES,), "invalid_credentials"),
    ],
)
async def test_credentials_that_do_not_count_are_challenged(credentials, reason):
    verdict, response = await connect("api.openai.com:443", *credentials)
    assert (verdict.action, verdict.reason, verdict.principal) == (Action.REFUSE, reason, None)
    assert response is not None
    assert response.status_code == 407
    assert response.headers["proxy-authenticate"] == 'Basic realm="AI Gateway Proxy"'
    assert "connection" not in response.headers
    assert "aiproxyd user add" in response.text


@pytest.mark.parametrize(
    ("field", "token"),
    [
        (basic("x:t0ken"), "t0ken"),
        (basic(":t0ken", "bAsIc"), "t0ken"),
        (basic("x:t0:ken"), "t0:ken"),
        (basic("ünicode:pässword"), "pässword"),
        ("Basic  " + base64.b64encode(b"x:t0ken").decode(), "t0ken"),
        ("bearer t0ken", "t0ken"),
        ("Bearer a b", None),
        ("t0ken", None),
        ("", None),
    ],
)
def test_the_token_is_the_password_after_the_first_colon_or_the_bearer(field, token):
    assert token_of(field) == token


@pytest.mark.parametrize(
    ("book", "credentials", "principal"),
    [
        (Book(), [basic("x:t0ken")], ADA),
        (Book(), [basic("x:wrong")], None),
        (Book(), ["nonsense"], None),
        (Book(AiproxydError("nobody is there")), [basic("x:t0ken")], None),
    ],
)
async def test_whoever_names_a_wrong_port_is_refused_and_known_where_the_credentials_say(book, credentials, principal):
    verdict, response = await connect("example.com:22", *credentials, book=book)
    assert (verdict.reason, verdict.principal, response.status_code) == ("port", principal, 403)


async def test_a_port_scan_is_refused_before_anybody_is_asked():
    book = Book()
    verdict, _ = await connect("example.com:22", book=book)
    assert verdict.reason == "port"
    assert book.asked == []


async def test_only_provider_hosts_ask_for_credentials_in_the_decrypted_mode():
    book = Book()
    assert (await connect("example.com:443", auth_mode="decrypted", book=book))[0].action is Action.TUNNEL
    assert book.asked == []
    assert (await connect("api.openai.com:443", auth_mode="decrypted", book=book))[0].status_code == 407
    assert (await connect("api.openai.com:443", basic("x:t0ken"), auth_mode="decrypted"))[0].principal == ADA


async def test_everybody_is_anonymous_when_authentication_is_off():
    verdict, _ = await connect("api.openai.com:443", auth_mode="off")
    assert (verdict.action, verdict.principal) == (Action.DECRYPT, ANONYMOUS)


@pytest.mark.parametrize(
    ("failure", "reason"), [(AiproxydError("control is gone"), "identity_unavailable"), (KeyError("oops"), "internal")]
)
async def test_an_identity_service_that_fails_refuses(failure, reason, caplog):
    with caplog.at_level(logging.CRITICAL):
        verdict, response = await connect("api.openai.com:443", basic("x:t0ken"), book=Book(failure))
    assert (verdict.action, verdict.reason, verdict.status_code) == (Action.REFUSE, reason, 503)
    assert response is not None
    assert response.status_code == 503
    assert "oops" not in response.text
    assert "control is gone" not in response.text


async def test_a_refusal_by_an_addon_before_it_stands():
    flow = tflow.tflow()
    flow.response = http.Response.make(403, "no")
    await ConnectAddon(Book(), ConnectSettings(providers=PROVIDERS)).http_connect(flow)
    assert flow.response.text == "no"
    assert VERDICT not in flow.metadata


async def test_settings_are_swapped_whole():
    addon = ConnectAddon(Book(), ConnectSettings(providers=PROVIDERS, auth_mode="off"))
    addon.settings = ConnectSettings(providers=ProviderTable(), auth_mode="off", realm="other")
    flow = tflow.tflow()
    flow.request.data.method = b"CONNECT"
    flow.request.data.authority = b"api.openai.com:443"
    await addon.http_connect(flow)
    assert flow.metadata[VERDICT].action is Action.TUNNEL


@pytest.mark.parametrize(
    ("authority", "action", "reason"),
    [
        ("example.com", Action.TUNNEL, "no_provider"),
        ("example.com:80", Action.TUNNEL, "no_provider"),
        ("api.openai.com:443", Action.REFUSE, "plain_http"),
        ("example.com:8080", Action.REFUSE, "port"),
    ],
)
async def test_a_plain_request_follows_the_rules_of_a_tunnel(authority, action, reason):
    verdict, _ = await connect(authority, basic("x:t0ken"), method="GET")
    assert (verdict.action, verdict.reason) == (action, reason)
