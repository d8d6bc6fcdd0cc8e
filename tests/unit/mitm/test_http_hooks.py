"""The hooks alone; what they do between real sockets is in `test_safe_handler` and `test_safe_layers`."""

import pytest
from mitmproxy import flow as mitm_flow
from mitmproxy import http
from mitmproxy.test import tflow

from aiproxyd.mitm.decrypted import AbortedBy, DecryptedConnection, TapSettings
from aiproxyd.mitm.http_hooks import HttpHooks
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.safe_layers import ENDED_BY
from aiproxyd.mitm.tap import Tap
from aiproxyd.model.authority import Authority
from aiproxyd.model.observation import InterceptionEnded, InterceptionStarted
from tests.unit.mitm.conversation import BODY, REPLY
from tests.unit.mitm.rig import ADA, HOST, PROVIDER, ListJournal


@pytest.fixture
def journal():
    return ListJournal()


@pytest.fixture
def hooks(journal):
    return HttpHooks(Tap(Reporter(journal), TapSettings()))


def make_flow(hooks: HttpHooks, *, watched: bool = True) -> http.HTTPFlow:
    flow = tflow.tflow(req=http.Request.make("POST", f"https://{HOST}/v1/chat/completions", b"", {"Host": HOST}))
    if watched:
        hooks.watch(flow.client_conn.id, DecryptedConnection(flow.client_conn.id, Authority(HOST, 443), PROVIDER, ADA))
    return flow


def send(hooks: HttpHooks, flow: http.HTTPFlow) -> None:
    hooks.requestheaders(flow)
    assert callable(flow.request.stream)
    assert list(flow.request.stream(BODY)) == [BODY]
    assert list(flow.request.stream(b"")) == []
    hooks.request(flow)


def receive(hooks: HttpHooks, flow: http.HTTPFlow, body: bytes = REPLY) -> None:
    flow.response = http.Response.make(200, b"", {"Content-Type": "application/json"})
    hooks.responseheaders(flow)
    assert callable(flow.response.stream)
    assert list(flow.response.stream(body)) == [body]
    assert list(flow.response.stream(b"")) == []


def test_a_flow_is_tapped_from_its_head_to_its_end(hooks, journal):
    flow = make_flow(hooks)
    send(hooks, flow)
    receive(hooks, flow)
    hooks.response(flow)
    (ended,) = journal.all(InterceptionEnded)
    assert (ended.outcome, ended.usage.output_tokens) == ("completed", 5)
    hooks.client_disconnected(flow.client_conn)
    assert len(journal.all(InterceptionEnded)) == 1


def test_bytes_are_forwarded_before_they_are_looked_at(hooks, journal):
    flow = make_flow(hooks)
    send(hooks, flow)
    receive(hooks, flow, REPLY[:-1])
    forwarded = flow.response.stream(REPLY[-1:])
    assert next(iter(forwarded)) == REPLY[-1:]


@pytest.mark.parametrize("watched", [True, False])
def test_fields_meant_for_the_proxy_reach_no_origin(journal, watched):
    settings = TapSettings(header_labels=(("team", "x-team"),))
    hooks = HttpHooks(Tap(Reporter(journal), settings), frozenset({"x-team"}))
    flow = make_flow(hooks, watched=watched)
    flow.request.headers.fields += ((b"X-Team", b"search"), (b"x-teams", b"b"))
    hooks.requestheaders(flow)
    assert "x-team" not in flow.request.headers
    assert flow.request.headers["x-teams"] == "b"
    assert [started.labels for started in journal.all(InterceptionStarted)] == [{"team": "search"}] * watched


def test_a_flow_of_another_connection_is_streamed_and_not_tapped(hooks, journal):
    flow = make_flow(hooks, watched=False)
    flow.request.headers["Proxy-Authorization"] = "Basic x"
    hooks.requestheaders(flow)
    assert flow.request.stream is True
    assert "Proxy-Authorization" not in flow.request.headers
    hooks.request(flow)
    flow.response = http.Response.make(200)
    hooks.responseheaders(flow)
    assert flow.response.stream is True
    hooks.response(flow)
    assert journal.observations == []


@pytest.mark.parametrize(
    ("ended_by", "outcome"),
    [("client", "client_aborted"), ("upstream", "upstream_aborted"), ("unreachable", "upstream_error"), ("proxy", "refused")],
)
def test_an_error_is_laid_to_who_caused_it(hooks, journal, ended_by, outcome):
    flow = make_flow(hooks)
    send(hooks, flow)
    if ended_by == "upstream":
        receive(hooks, flow, REPLY[:5])
    flow.metadata[ENDED_BY] = ended_by
    flow.error = mitm_flow.Error("it broke")
    hooks.error(flow)
    hooks.error(flow)
    assert [ended.outcome for ended in journal.all(InterceptionEnded)] == [outcome]


def test_an_answer_of_an_addon_is_a_refusal_with_its_status(hooks, journal):
    flow = make_flow(hooks)
    hooks.requestheaders(flow)
    flow.response = http.Response.make(402)
    hooks.request(flow)
    (ended,) = journal.all(InterceptionEnded)
    assert (ended.outcome, ended.status_code) == ("refused", 402)


def test_a_head_that_mitmproxy_refuses_is_a_refusal(hooks, journal):
    flow = make_flow(hooks)
    flow.error = mitm_flow.Error("smuggling")
    hooks.requestheaders(flow)
    hooks.error(flow)
    assert journal.all(InterceptionEnded)[0].outcome == "refused"


def test_what_is_left_of_a_connection_ends_with_it(hooks, journal):
    flow = make_flow(hooks)
    send(hooks, flow)
    hooks.client_disconnected(flow.client_conn)
    assert journal.all(InterceptionEnded)[0].outcome == "client_aborted"
    hooks.response(flow)
    assert len(journal.all(InterceptionEnded)) == 1


def test_what_the_proxy_ends_is_interrupted(hooks, journal):
    flow = make_flow(hooks)
    send(hooks, flow)
    hooks.forget(flow.client_conn.id, AbortedBy.PROXY)
    assert journal.all(InterceptionEnded)[0].outcome == "interrupted"


def test_the_tap_is_told_the_head_without_white_space_around_values(hooks, journal):
    flow = make_flow(hooks)
    flow.request.headers = http.Headers([(b"Host", b"x"), (b"User-Agent", b" curl/8 \t")])
    hooks.requestheaders(flow)
    assert journal.all(InterceptionStarted)[0].user_agent == "curl/8"


@pytest.mark.parametrize(("status", "closes"), [(200, True), (101, False)])
def test_a_response_during_a_drain_ends_its_connection_but_an_upgrade_is_an_upgrade(hooks, status, closes):
    hooks.is_draining = True
    flow = make_flow(hooks)
    send(hooks, flow)
    flow.response = http.Response.make(status)
    hooks.responseheaders(flow)
    assert (flow.response.headers.get("connection") == "close") is closes
