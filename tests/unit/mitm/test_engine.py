import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterable

import pytest
import uvloop
from mitmproxy import connection, exceptions, http

from aiproxyd.ca.leaves import LeafStore
from aiproxyd.mitm import hooks
from aiproxyd.mitm.connect import VERDICT, ConnectAddon, ConnectSettings
from aiproxyd.mitm.decrypted import TapSettings
from aiproxyd.mitm.engine import Decision, Engine
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.tap import Tap
from aiproxyd.model.authority import Authority
from aiproxyd.model.head import Headers
from aiproxyd.model.verdict import Action, Verdict
from tests.unit.mitm.rig import ListJournal, own_ca
from tests.unit.mitm.test_connect import ADA, PROVIDERS, Book, basic

CLIENT = ("127.0.0.1", 40000)
GOOD = Headers([("host", "api.openai.com:443"), ("proxy-authorization", basic("x:t0ken"))])


def make_engine(*addons: object) -> Engine:
    reporter = Reporter(ListJournal())
    return Engine(
        ConnectAddon(Book(), ConnectSettings(providers=PROVIDERS)),
        tap=Tap(reporter, TapSettings()),
        leaves=LeafStore(own_ca(), 7),
        reporter=reporter,
        addons=addons,
    )


async def decide(*addons: object, authority: str = "api.openai.com:443", headers: Headers = GOOD, method="CONNECT") -> Decision:
    engine = make_engine(*addons)
    await engine.start()
    try:
        return await engine.decide(authority, headers, CLIENT, method=method)
    finally:
        await engine.close()


async def test_a_decision_carries_verdict_authority_and_no_answer():
    decision = await decide()
    assert decision.verdict.action is Action.DECRYPT
    assert decision.verdict.principal == ADA
    assert decision.authority == Authority("api.openai.com", 443)
    assert decision.response is None


@pytest.mark.parametrize(
    ("authority", "headers", "start"),
    [
        ("nonsense", GOOD, b"HTTP/1.1 400 "),
        ("example.com:22", GOOD, b"HTTP/1.1 403 "),
        ("example.com:443", Headers(), b"HTTP/1.1 407 "),
        ("\udcff:443", GOOD, b"HTTP/1.1 400 "),
        ("ex\u00e4mple.com:443", GOOD, b"HTTP/1.1 400 "),
    ],
)
async def test_a_refusal_carries_a_whole_response_that_keeps_the_connection(authority, headers, start):
    decision = await decide(authority=authority, headers=headers)
    assert decision.verdict.action is Action.REFUSE
    assert decision.response is not None
    head, _, body = decision.response.partition(b"\r\n\r\n")
    assert head.startswith(start)
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b"connection: close" not in head.lower()


async def test_a_plain_request_may_leave_out_port_80():
    decision = await decide(authority="example.com", method="GET")
    assert decision.authority == Authority("example.com", 80)
    assert decision.verdict.action is Action.TUNNEL


class Raises:
    def http_connect(self, flow: http.HTTPFlow) -> None:
        raise RuntimeError("secret detail")


class RaisesLater:
    async def http_connect(self, flow: http.HTTPFlow) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("secret detail")


class Hangs:
    async def http_connect(self, flow: http.HTTPFlow) -> None:
        await asyncio.Event().wait()


class Kills:
    def http_connect(self, flow: http.HTTPFlow) -> None:
        flow.kill()


class TakesTheVerdictAway:
    def http_connect(self, flow: http.HTTPFlow) -> None:
        flow.metadata[VERDICT] = "tunnel, please"


class TakesTheAnswerAway:
    def http_connect(self, flow: http.HTTPFlow) -> None:
        flow.metadata[VERDICT] = Verdict(Action.REFUSE, "x", status_code=403)
        flow.response = None


@pytest.mark.parametrize("addon", [Raises, RaisesLater, Hangs, Kills, TakesTheVerdictAway, TakesTheAnswerAway])
async def test_an_addon_that_fails_refuses(addon, monkeypatch, caplog):
    monkeypatch.setattr(hooks, "HOOK_TIMEOUT_SECONDS", 0.05)
    with caplog.at_level(logging.CRITICAL):
        decision = await decide(addon())
    assert (decision.verdict.action, decision.verdict.status_code) == (Action.REFUSE, 503)
    assert decision.response is not None
    assert decision.response.startswith(b"HTTP/1.1 503 ")
    assert b"secret detail" not in decision.response


async def test_an_addon_after_ours_may_refuse_with_its_own_words():
    class Refuses:
        def http_connect(self, flow: http.HTTPFlow) -> None:
            flow.response = http.Response.make(403, "not on Sundays")

    decision = await decide(Refuses())
    assert (decision.verdict.action, decision.verdict.reason) == (Action.REFUSE, "addon")
    assert decision.response is not None
    assert decision.response.endswith(b"not on Sundays")


async def test_an_addon_may_halt_the_round():
    class Halts:
        def http_connect(self, flow: http.HTTPFlow) -> None:
            raise exceptions.AddonHalt

    assert (await decide(Halts(), Raises())).verdict.action is Action.DECRYPT


async def test_root_logging_is_untouched():
    before = list(logging.getLogger().handlers)
    engine = make_engine()
    await engine.start()
    assert logging.getLogger().handlers == before
    await engine.close()
    assert logging.getLogger().handlers == before


async def test_no_addon_but_ours_is_loaded():
    engine = make_engine()
    await engine.start()
    assert engine._host is not None
    assert list(_names(engine._host.addons.chain)) == ["aiproxyd_connect", "aiproxyd_http", "aiproxyd_tls"]
    await engine.close()


def _names(chain: Iterable[object]) -> Iterable[str]:
    for addon in chain:
        yield str(getattr(addon, "name", type(addon).__name__))


def test_mitmproxys_own_addons_are_not_even_imported():
    code = "import sys, aiproxyd.mitm.engine; print([m for m in sys.modules if m.startswith(('mitmproxy.addons', 'flask'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"


def test_it_runs_under_uvloop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(decide()).verdict.action is Action.DECRYPT


def test_it_runs_under_asyncio():
    with asyncio.Runner() as runner:
        assert runner.run(decide()).verdict.action is Action.DECRYPT


class Looking:
    """An addon that keeps the flows it is shown."""

    def __init__(self) -> None:
        self.flows: list[http.HTTPFlow] = []

    def http_connect(self, flow: http.HTTPFlow) -> None:
        self.flows.append(flow)


async def test_addons_are_shown_a_flow_as_mitmproxy_makes_it():
    looking = Looking()
    await decide(looking)
    (flow,) = looking.flows
    made = http.HTTPFlow(
        connection.Client(peername=CLIENT, sockname=("", 0), state=connection.ConnectionState.OPEN),
        connection.Server(address=("api.openai.com", 443)),
        live=True,
    )
    made.request = http.Request(
        "api.openai.com",
        443,
        b"CONNECT",
        b"",
        b"api.openai.com:443",
        b"",
        b"HTTP/1.1",
        http.Headers([(name.encode(), value.encode()) for name, value in GOOD]),
        b"",
        None,
        flow.request.timestamp_start,
        flow.request.timestamp_end,
    )
    own = {"id", "timestamp_created", "timestamp_start", "metadata", "client_conn", "server_conn", "request", "data"}
    for shown, as_made in (
        (flow, made),
        (flow.client_conn, made.client_conn),
        (flow.server_conn, made.server_conn),
        (flow.request, made.request),
    ):
        assert type(shown) is type(as_made)
        assert shown.__dict__.keys() == as_made.__dict__.keys()
        assert {key: value for key, value in shown.__dict__.items() if key not in own} == {
            key: value for key, value in as_made.__dict__.items() if key not in own
        }
    assert flow.request.data == made.request.data
    assert flow.get_state().keys() == made.get_state().keys()


async def test_two_flows_share_nothing_that_an_addon_might_change():
    looking = Looking()
    await decide(looking)
    await decide(looking)
    first, second = looking.flows
    ids = [part.id for flow in looking.flows for part in (flow, flow.client_conn, flow.server_conn)]
    assert len(set(ids)) == len(ids)
    for part in ("metadata", "client_conn", "server_conn", "request"):
        assert getattr(first, part) is not getattr(second, part)
    assert first.request.data is not second.request.data
    assert first.request.headers is not second.request.headers
