"""The page of a real daemon, in a real browser: what a person does there, and what a client cannot do to them."""

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.browser import Browser, chromium, running_browser
from tests.support.daemon import Daemon, eventually

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")

URL = "https://api.anthropic.com/v1/messages"
TOOL = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(autouse=True)
def nothing_from_elsewhere(browser: Browser, relay_daemon: Daemon) -> Iterator[None]:
    """Whatever a test does, no script fails, the policy forbids nothing, and nothing is asked of anybody else."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.call("Network.clearBrowserCookies")
    browser.look()
    yield
    assert browser.complaints == []
    assert all(url.startswith("http://127.0.0.1:") for url in browser.requests)


def ask(
    daemon: Daemon, model: str, prompt: str, *, user: str = "alice", token: str | None = None, **more: Any
) -> httpx.Response:
    headers = {"x-claude-code-session-id": more.pop("session"), "user-agent": "claude-cli/2.1.329 (external, cli)"}
    headers |= more.pop("headers", {})
    request = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": prompt}], **more}
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    with httpx.Client(proxy=daemon.proxy_url(user, token), verify=trust, trust_env=False) as client:
        return client.post(URL, json=request, headers=headers)


def test_a_session_is_found_opened_and_searched(browser: Browser, relay_daemon: Daemon, model: str) -> None:
    session = f"session-{model}"
    ask(relay_daemon, model, "What is the weather in Lisbon?", session=session, tools=[TOOL])
    ask(relay_daemon, model, "And is it windy in Porto?", session=session, thinking={"type": "enabled", "budget_tokens": 1024})
    relay_daemon.records(model, count=2)
    browser.open(f"{relay_daemon.admin_url}/")
    assert "alice" in browser.text(".boards")
    browser.act("document.querySelector('a[href=\"/sessions\"]').click()")
    browser.fill("#q", f"model:{model}")
    browser.act("document.querySelector('[role=search] button').click()")
    assert browser.texts(".sessions td.prompt a") == ["And is it windy in Porto?"]
    browser.act("document.querySelector('.sessions td.prompt a').click()")
    assert len(browser.texts("section.thread")) == 2
    assert "get_weather" in browser.text("details.tool")
    browser.fill("#find", "lisbon")
    browser.until(lambda: len(browser.texts("section.thread")) == 1, "the other thread to disappear")
    assert "Lisbon" in browser.text("section.thread:not([hidden])")
    assert "1 place" in browser.text("[data-find-count]")
    browser.fill("#find", "nothing says this")
    browser.until(lambda: browser.texts("section.thread") == [], "all threads to disappear")


def test_hosts_of_providers_are_named_once_and_stay_in_one_piece(browser: Browser, relay_daemon: Daemon) -> None:
    browser.look(width=1200)
    browser.open(f"{relay_daemon.admin_url}/")
    hosts = browser.texts(".hosts span")
    assert "api.anthropic.com" in hosts
    assert len(hosts) == len(set(hosts))
    assert not [host for host in hosts if host.endswith(":80")]
    lines = browser.run("[...document.querySelectorAll('.hosts span')].map((host) => host.getClientRects().length)")
    assert set(lines) == {1}
    assert browser.run("document.documentElement.scrollWidth") <= 1200


def test_a_select_writes_a_term_into_the_search(browser: Browser, relay_daemon: Daemon, model: str) -> None:
    ask(relay_daemon, model, "Hi", session=model)
    relay_daemon.records(model, count=1)
    browser.open(f"{relay_daemon.admin_url}/sessions?q=initiator:alice")
    browser.act(
        "{ const s = document.querySelector('select[data-term=client]'); s.value = 'Claude Code';"
        " s.dispatchEvent(new Event('change', {bubbles: true})) }"
    )
    assert browser.run("document.querySelector('#q').value") == 'initiator:alice client:"Claude Code"'
    assert browser.run("document.querySelector('select[data-term=client]').value") == "Claude Code"


def test_a_wrong_search_says_what_is_wrong(browser: Browser, relay_daemon: Daemon) -> None:
    browser.open(f"{relay_daemon.admin_url}/sessions?q=colour:red")
    assert '"colour" is not a valid query param' in browser.text(".notice.bad")


def test_the_live_view_shows_what_is_made_meanwhile(browser: Browser, relay_daemon: Daemon, model: str) -> None:
    browser.open(f"{relay_daemon.admin_url}/live")
    browser.until(lambda: browser.text("[data-live-state]") == "connected", "the live view to be connected")
    ask(relay_daemon, model, f"Prompt of {model}", session=model, tools=[TOOL])
    browser.until(lambda: f"Prompt of {model}" in browser.text(".live tbody"), "the prompt to appear")
    browser.fill("#filter", model)
    browser.until(
        lambda: any("completed" in row for row in browser.texts(".live tbody tr")), "the end of the request to appear"
    )
    rows = browser.texts(".live tbody tr")
    assert any("tool call" in row and "get_weather" in row for row in rows)
    assert all(model in row for row in rows), "the filter hides the others"


def test_a_user_is_made_and_their_token_works_until_it_is_revoked(browser: Browser, relay_daemon: Daemon, model: str) -> None:
    name = f"carol-{model[-6:]}"
    browser.open(f"{relay_daemon.admin_url}/users")
    browser.fill("input[name=name]", name)
    browser.fill("input[name=groups]", "web, nightly")
    browser.act("document.querySelector('form[action=\"/users/add\"]').requestSubmit()")
    token = browser.text(".token code")
    assert token.startswith("aip_")
    assert f"{name}:{token}@{relay_daemon.listen}" in browser.text(".made pre")
    eventually(
        lambda: ask(relay_daemon, model, "Hi", user=name, token=token, session=model).status_code == 200, "the token to work"
    )
    assert relay_daemon.record(model)["initiator"]["name"] == name
    browser.open(f"{relay_daemon.admin_url}/users")
    assert token not in browser.run("document.documentElement.outerHTML")
    browser.act(f"document.querySelector('form[data-confirm*=\"{name}\"] button').click()")
    assert f"The token of {name} is revoked." in browser.text(".notice")

    def is_refused() -> bool:
        try:
            ask(relay_daemon, model, "Hi", user=name, token=token, session=model)
        except httpx.ProxyError as error:
            return "407" in str(error)
        return False

    eventually(is_refused, "the token to be worthless")


def test_the_lines_of_a_tool_name_the_proxy_and_the_certificate(browser: Browser, relay_daemon: Daemon) -> None:
    browser.open(f"{relay_daemon.admin_url}/setup")
    browser.act("{ const s = document.querySelector('select[name=tool]'); s.value = 'codex'; s.form.requestSubmit() }")
    text = browser.text("main")
    assert f"http://NAME:TOKEN@{relay_daemon.listen}" in text
    assert "CODEX_CA_CERTIFICATE" in text
    assert f"{relay_daemon.admin_url}/ca-cert.pem" in text


ATTACKS = (
    "<script>window.pwned = 1; document.title = 'pwned'</script>",
    '<img src=x onerror="window.pwned = 1">',
    "\"'><svg onload=window.pwned=1>",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:window.pwned=1//</textarea></pre></title><script>window.pwned=1</script>",
    "'; DROP TABLE interceptions; --",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_client_sends_is_text_wherever_it_is_shown(
    browser: Browser, relay_daemon: Daemon, model: str, attack: str
) -> None:
    named = f"{model} {attack.replace('+', ' ')}"
    tool = TOOL | {"name": attack, "description": attack}
    browser.open(f"{relay_daemon.admin_url}/live")
    browser.until(lambda: browser.text("[data-live-state]") == "connected", "the live view to be connected")
    answer = ask(
        relay_daemon,
        named,
        f"{model} {attack}",
        session=f"{model} {attack}",
        tools=[tool],
        headers={"user-agent": f"claude-cli/{attack}", "x-client-request-id": attack},
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    assert answer.status_code == 200
    record = relay_daemon.record(named)
    assert record["model"] == named
    browser.until(lambda: attack in browser.text(".live tbody"), "the attack to be shown live")
    for path in (
        "/?days=7",
        f"/sessions?{httpx.QueryParams({'q': f'initiator:{record["initiator"]["id"]}'})}",
        f"/sessions?{httpx.QueryParams({'q': attack})}",
        f"/session?{httpx.QueryParams({'id': record['id']})}",
        f"/session?{httpx.QueryParams({'id': attack})}",
        f"/setup?{httpx.QueryParams({'tool': attack, 'user': 'x'})}",
        f"/login?{httpx.QueryParams({'next': attack})}",
        f"/?{httpx.QueryParams({'reloaded': attack})}",
    ):
        browser.open(relay_daemon.admin_url + path)
        assert browser.run("window.pwned") is None, path
        assert "pwned" not in browser.run("document.title"), path
    browser.open(f"{relay_daemon.admin_url}/session?{httpx.QueryParams({'id': record['id']})}")
    browser.run("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert attack in browser.text(".said")
    assert attack in browser.text("details.tool")
    assert attack in browser.text(".facts")
    assert "window.pwned" not in browser.run("[...document.scripts].map(s => s.textContent).join('')")


def _config(**roles: str) -> dict[str, Any]:
    tokens = [
        {"name": name, "token_sha256": hashlib.sha256(f"{name}-token".encode()).hexdigest(), "role": role}
        for name, role in roles.items()
    ]
    return {"admin": {"tokens": tokens}}


def test_a_login_opens_what_its_role_allows(browser: Browser, own_daemon: Any, model: str) -> None:
    daemon: Daemon = own_daemon(config=_config(vera="viewer", otto="auditor", ada="admin"))
    ask(daemon, model, "A secret plan", session=model, tools=[TOOL])
    daemon.records(model, count=1)

    def log_in(token: str, path: str) -> None:
        browser.call("Network.clearBrowserCookies")
        browser.open(daemon.admin_url + path)
        assert browser.text("h1") == "Log in"
        browser.fill("#token", token)
        browser.act("document.querySelector('form.stack').requestSubmit()")

    log_in("wrong", "/")
    assert "not known" in browser.text(".notice.bad")
    log_in("vera-token", f"/session?id={model}")
    assert browser.run("location.pathname + location.search") == f"/session?id={model}", (
        "the login leads where it was asked for"
    )
    assert "A secret plan" not in browser.run("document.documentElement.outerHTML")
    assert "get_weather" in browser.text("main")
    browser.open(f"{daemon.admin_url}/users")
    assert not browser.run("document.querySelector('form[action=\"/users/add\"]')")
    assert "content read" not in daemon.log()
    log_in("otto-token", f"/session?id={model}")
    assert "A secret plan" in browser.text("main")
    daemon.wait_for_log('"message":"content read","who":"otto"')
    log_in("ada-token", "/users")
    assert browser.run("document.querySelector('form[action=\"/users/add\"]') !== null")
    browser.act("document.querySelector('form[action=\"/logout\"]').requestSubmit()")
    browser.open(f"{daemon.admin_url}/users")
    assert browser.text("h1") == "Log in"


@pytest.mark.parametrize("width", [1360, 390])
def test_every_view_fits_its_window_and_can_be_used_by_keyboard(
    browser: Browser, relay_daemon: Daemon, model: str, width: int, tmp_path: Path
) -> None:
    ask(relay_daemon, model, "Fit, please: " + "x" * 500, session=model, tools=[TOOL])
    relay_daemon.records(model, count=1)
    for dark in (False, True):
        browser.look(width=width, dark=dark)
        for path in ("/?days=30", "/sessions", f"/session?id={model}", "/live", "/users", "/setup?tool=python"):
            browser.open(relay_daemon.admin_url + path)
            assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0, path
            browser.screenshot(tmp_path / "shot.png")
            assert browser.run("getComputedStyle(document.body).backgroundColor") == (
                "rgb(20, 22, 26)" if dark else "rgb(245, 246, 248)"
            )
            browser.press("Tab")
            assert browser.run("document.activeElement.className") == "skip", path
            unnamed = browser.run(
                "[...document.querySelectorAll('input:not([type=hidden]), select, button')].filter(e => "
                "!(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML)"
            )
            assert unnamed == [], path
            assert browser.run("document.querySelectorAll('h1').length") == 1, path
