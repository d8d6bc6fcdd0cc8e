"""Requests that are carried one by one, on real sockets with real TLS: what the provider gets, what the client gets, what is told."""

import asyncio
import contextlib
import hashlib
import json

import msgspec
import pytest

from aiproxyd.breaker import BreakerSettings
from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.mitm.decrypted import AbortedBy
from aiproxyd.mitm.front import FrontSettings
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.observation import (
    BreakerChanged,
    BreakerRejected,
    ConnectionSecured,
    KeyFailover,
    KeyPoolExhausted,
    KeyStateChanged,
    UnknownEventsSeen,
    UpstreamTlsFailed,
)
from aiproxyd.upstream import ActorHeaders, UpstreamRules
from tests.unit.mitm.stage import PROVIDER, read_response, reset, stage, until

LOOPS = "both"

FIRST, SECOND = "sk-ant-first-0123456789aaaa", "sk-ant-second-0123456789bbbb"
FIRST_HINT, SECOND_HINT = "sk-a...aaaa", "sk-a...bbbb"

POST = b"POST /v1/messages HTTP/1.1\r\nhOST: api.anthropic.com\r\nX-Odd:  1\r\nContent-Length: %d\r\n\r\n%s"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def keyed(*keys, **values):
    return UpstreamRules("anthropic", "anthropic", keys=tuple(UpstreamKey(key) for key in keys or (FIRST, SECOND)), **values)


def post(body=b"{}", fields=b""):
    raw = POST % (len(body), body)
    return raw.replace(b"X-Odd", fields + b"X-Odd", 1)


class Provider:
    """An upstream that remembers what it got, and answers each request by the key it came with."""

    def __init__(self, answers=None, default=OK):
        self.heads = []
        self.bodies = []
        self.connections = 0
        self.answers = answers or {}
        self.default = default

    @property
    def keys(self):
        return [self.field(head, b"x-api-key") for head in self.heads]

    @staticmethod
    def field(head, name):
        for line in head.split(b"\r\n")[1:]:
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip().decode()
        return None

    async def __call__(self, reader, writer):
        self.connections += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            length = int(self.field(head, b"content-length") or 0)
            self.bodies.append(b"")
            if self.field(head, b"transfer-encoding"):
                while not self.bodies[-1].endswith(b"0\r\n\r\n"):
                    self.bodies[-1] += await reader.read(65536)
            else:
                self.bodies[-1] += await reader.readexactly(length)
            answer = self.answers.get(self.field(head, b"x-api-key"), self.default)
            writer.write(answer)
            await writer.drain()


def limited(seconds=30):
    return b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %d\r\nContent-Length: 4\r\n\r\nslow" % seconds


UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"


# Keys


async def test_the_entry_s_key_takes_the_place_of_what_a_client_sent_and_all_else_stays(tmp_path):
    provider = Provider()
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post(b'{"a":1}', b"X-API-key: aiproxyd\r\nProxy-X: 1\r\nX-Coder-AI-Governance-Request-Id: 1\r\n"))
        assert await read_response(reader) == OK
        assert provider.heads == [
            b"POST /v1/messages HTTP/1.1\r\nhOST: api.anthropic.com\r\nx-api-key: %s\r\nX-Odd:  1\r\nContent-Length: 7\r\n\r\n"
            % FIRST.encode()
        ]
        assert provider.bodies == [b'{"a":1}']
        (seen,) = s.tap.requests
        assert (seen.request, seen.response, seen.calls[-1]) == (b'{"a":1}', b"ok", "response_end")
        assert seen.key_hint == FIRST_HINT
        assert seen.carried_as == (1, FIRST_HINT, "")
        assert [told.attempts for told in s.memory.of(KeyFailover)] == [1]
        writer.close()


async def test_the_time_of_both_handshakes_is_told_once(tmp_path):
    async with stage(tmp_path, Provider(), rules=keyed()) as s:
        before = s.front.reporter.monotonic()
        reader, writer = await s.decrypt()
        (told,) = await s.memory.until(ConnectionSecured)
        assert told.provider == "anthropic"
        assert 0 < told.seconds <= s.front.reporter.monotonic() - before
        for _ in range(2):
            writer.write(post())
            assert await read_response(reader) == OK
        assert len(s.memory.of(ConnectionSecured)) == 1
        writer.close()


async def test_a_handshake_that_fails_is_not_told_as_one_that_took_time(tmp_path):
    async with stage(tmp_path, Provider(), rules=keyed(), trusted=False) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 502")
        assert not s.memory.of(ConnectionSecured)
        writer.close()


async def test_the_first_key_is_limited_and_the_second_answers(tmp_path):
    provider = Provider({FIRST: limited()})
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        for number in range(2):
            writer.write(post(b"body %d" % number))
            assert await read_response(reader) == OK
        # The second request begins with the key that is usable.
        assert provider.keys == [FIRST, SECOND, SECOND]
        assert provider.bodies == [b"body 0", b"body 0", b"body 1"]
        assert [seen.carried_as for seen in s.tap.requests] == [(2, SECOND_HINT, ""), (1, SECOND_HINT, "")]
        assert [(told.state, told.reason, told.cooldown_seconds) for told in s.memory.of(KeyStateChanged)] == [
            ("temporary", "rate_limited", 30)
        ]
        assert [told.attempts for told in s.memory.of(KeyFailover)] == [2, 1]
        writer.close()


async def test_when_all_keys_rest_the_answer_is_429_with_the_shortest_wait(tmp_path):
    provider = Provider({FIRST: limited(90), SECOND: limited(20)})
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        for _ in range(2):
            writer.write(post())
            answer = await read_response(reader)
            assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert Provider.field(answer.partition(b"\r\n\r\n")[0], b"retry-after") == "20"
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "rate_limit_error"
        assert provider.keys == [FIRST, SECOND]
        assert [(seen.aborted, seen.status_code) for seen in s.tap.requests] == [(AbortedBy.NO_KEY, 429)] * 2
        assert [told.outcome for told in s.memory.of(KeyPoolExhausted)] == ["rate_limited"] * 2
        writer.close()


async def test_when_no_key_is_accepted_the_answer_is_502(tmp_path):
    provider = Provider(default=UNAUTHORIZED)
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 502 ")
        assert provider.keys == [FIRST, SECOND]
        assert [told.outcome for told in s.memory.of(KeyPoolExhausted)] == ["auth_failed"]
        assert [told.attempts for told in s.memory.of(KeyFailover)] == [2]
        writer.close()


@pytest.mark.parametrize("status", [400, 404, 500, 529])
async def test_no_other_status_is_the_key_s_fault(tmp_path, status):
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\nbad" % status
    provider = Provider({FIRST: answer})
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert await read_response(reader) == answer
        assert provider.keys == [FIRST]
        writer.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_of_ten_megabytes_is_not_lost(tmp_path, framing):
    body = bytes(range(256)) * 40960
    provider = Provider({FIRST: limited()})
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        if framing == "length":
            writer.write(post(body))
        else:
            body = b"".join(b"%x\r\n%s\r\n" % (len(body) // 10, body[i::10]) for i in range(10)) + b"0\r\n\r\n"
            writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert await read_response(reader) == OK
        assert [hashlib.sha256(got).digest() for got in provider.bodies] == [hashlib.sha256(body).digest()] * 2
        (seen,) = s.tap.requests
        assert seen.calls.count("request_end") == 1
        assert len(seen.request) == 10_485_760
        writer.close()


async def test_a_body_larger_than_what_is_kept_is_not_sent_again_and_the_record_says_so(tmp_path):
    provider = Provider({FIRST: limited()})
    async with stage(tmp_path, provider, rules=keyed(retry_body_max_bytes=1000)) as s:
        reader, writer = await s.decrypt()
        writer.write(post(bytes(1001)))
        assert await read_response(reader) == limited()
        (seen,) = s.tap.requests
        attempts, hint, remark = seen.carried_as
        assert (attempts, hint) == (1, FIRST_HINT)
        assert "retry_body_max_bytes" in remark
        # The next request knows better.
        writer.write(post(bytes(1000)))
        assert await read_response(reader) == OK
        assert provider.keys == [FIRST, SECOND]
        writer.close()


async def test_a_refusal_that_comes_before_the_body_is_whole_is_followed_by_the_next_key_with_all_of_the_body(tmp_path):
    heads = []
    bodies = []

    async def upstream(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) == 1:
            await reader.readexactly(5)
            writer.write(limited())
            await reader.read()
            return
        bodies.append(await reader.readexactly(10))
        writer.write(OK)
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post(b"0123456789")[:-5])
        await until(lambda: len(heads) == 2)
        writer.write(b"56789")
        assert await read_response(reader) == OK
        assert bodies == [b"0123456789"]
        assert s.tap.requests[0].request == b"0123456789"
        writer.close()


async def test_a_client_s_own_key_goes_on_untouched(tmp_path):
    provider = Provider(default=limited())
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post(b"{}", b"X-Api-Key: sk-ant-mine\r\n"))
        assert await read_response(reader) == limited()
        assert provider.heads == [post(b"{}", b"X-Api-Key: sk-ant-mine\r\n")[:-2]]
        assert s.tap.requests[0].key_hint is None
        assert not s.memory.of(KeyStateChanged)
        writer.close()


async def test_byok_that_is_not_enabled_is_refused_in_coder_s_words(tmp_path):
    provider = Provider()
    async with stage(tmp_path, provider, rules=keyed(byok=False)) as s:
        reader, writer = await s.decrypt()
        writer.write(post(b"{}", b"X-Coder-AI-Governance-Token: t\r\nX-Api-Key: mine\r\n"))
        answer = await read_response(reader)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"Bring Your Own Key (BYOK) mode is not enabled." in answer
        (seen,) = s.tap.requests
        assert (seen.aborted, seen.status_code, seen.request) == (AbortedBy.REFUSED, 403, b"{}")
        # The connection is good for another request.
        writer.write(post(b"{}", b"X-Api-Key: mine\r\n"))
        assert await read_response(reader) == OK
        assert provider.keys == [FIRST]
        writer.close()


async def test_the_token_of_this_proxy_is_no_key(tmp_path):
    provider = Provider()
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.connect("api.anthropic.com:443", headers="Proxy-Authorization: Bearer the-token\r\n")
        await writer.start_tls(s.client_context, server_hostname="api.anthropic.com")
        writer.write(post(b"{}", b"Authorization: Bearer the-token\r\n"))
        await read_response(reader)
        assert provider.keys == [FIRST]
        assert b"the-token" not in provider.heads[0]
        writer.close()


async def test_actor_headers_tell_who_it_is_and_those_of_clients_do_not(tmp_path):
    provider = Provider()
    rules = UpstreamRules("anthropic", "anthropic", actor_headers=ActorHeaders("x-actor", "x-actor-name"))
    async with stage(tmp_path, provider, rules=rules) as s:
        reader, writer = await s.decrypt()
        writer.write(post(b"{}", b"X-Actor: root\r\nX-Actor-Name: root\r\n"))
        await read_response(reader)
        writer.write(b"GET /v1/models HTTP/1.1\r\nx-actor: root\r\n\r\n")
        await read_response(reader)
        assert [Provider.field(head, b"x-actor-name") for head in provider.heads] == ["anonymous", None]
        assert b"root" not in b"".join(provider.heads)
        writer.close()


def signed(**values):
    key = UpstreamKey("secret", access_key_id="AKIAEXAMPLE000000001", region="eu-west-1")
    return UpstreamRules("anthropic", "bedrock", keys=(key,), **values)


async def test_a_request_is_signed_when_its_body_is_whole(tmp_path):
    provider = Provider()
    async with stage(tmp_path, provider, rules=signed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post(b"0123456789", b"Authorization: Bearer aiproxyd\r\nExpect: 100-continue\r\n")[:-5])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not provider.heads
        writer.write(b"56789")
        assert await read_response(reader) == OK
        (head,) = provider.heads
        authorization = Provider.field(head, b"authorization")
        assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE000000001/")
        assert "/eu-west-1/bedrock/aws4_request" in authorization
        assert Provider.field(head, b"x-amz-date")
        assert provider.bodies == [b"0123456789"]
        assert s.tap.requests[0].key_hint == "AKIA...0001"
        writer.close()


async def test_a_request_too_large_to_be_signed_is_refused(tmp_path):
    provider = Provider()
    async with stage(tmp_path, provider, rules=signed(retry_body_max_bytes=1000)) as s:
        reader, writer = await s.decrypt()
        writer.write(post(bytes(2000)))
        answer = await read_response(reader)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"retry_body_max_bytes" in answer
        assert not provider.heads
        assert (s.tap.requests[0].aborted, s.tap.requests[0].status_code) == (AbortedBy.REFUSED, 413)
        writer.write(post(b"small"))
        assert await read_response(reader) == OK
        writer.close()


# Connections


async def test_requests_of_one_client_share_a_connection(tmp_path):
    provider = Provider()
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(b"".join(post(b"%d" % number) for number in range(5)))
        for _ in range(5):
            assert await read_response(reader) == OK
        assert provider.bodies == [b"0", b"1", b"2", b"3", b"4"]
        assert provider.connections == 1
        writer.close()


async def test_a_connection_that_died_between_requests_is_replaced_without_a_word(tmp_path):
    connections = []

    async def upstream(reader, writer):
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK)
        if len(connections) == 1:
            # The second request is taken and never answered, as by a load balancer whose idle timeout passes then.
            await reader.readuntil(b"\r\n\r\n{}")
            reset(writer)
            return
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        for _ in range(2):
            writer.write(post())
            assert await read_response(reader) == OK
        assert len(connections) == 2
        assert [seen.carried_as[0] for seen in s.tap.requests] == [1, 1]
        writer.close()


async def test_a_connection_that_died_before_the_first_request_is_replaced_without_a_word(tmp_path):
    provider = Provider()
    ended = asyncio.Event()

    async def upstream(reader, writer):
        if not ended.is_set():
            ended.set()
            return
        await provider(reader, writer)

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        await ended.wait()
        await until(lambda: all(pair._legs._adopted[0].is_closed for pair in s.front._pairs))
        writer.write(post())
        assert await read_response(reader) == OK
        writer.close()


async def test_a_provider_that_leaves_without_an_answer_is_a_502_and_the_client_stays(tmp_path):
    connections = []

    async def upstream(reader, writer):
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n{}")
        if len(connections) > 2:  # the first one may have died while it stood idle, so there is a second try
            writer.write(OK)
            await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        writer.write(post())
        assert await read_response(reader) == OK
        assert [seen.aborted for seen in s.tap.requests] == [AbortedBy.UPSTREAM, None]
        writer.close()


async def test_a_provider_that_is_not_trusted_is_a_502_that_is_told(tmp_path):
    async with stage(tmp_path, Provider(), rules=keyed(), trusted=False) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert b"certificate is not trusted" in await read_response(reader)
        assert [told.reason for told in s.memory.of(UpstreamTlsFailed)] == ["untrusted"]
        assert s.tap.requests[0].aborted is AbortedBy.UNREACHABLE
        writer.close()


async def test_a_silent_provider_is_given_up_after_its_time(tmp_path):
    async def upstream(reader, writer):
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed(first_byte_timeout_seconds=0.05)) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert s.tap.requests[0].status_code == 504
        writer.close()


async def test_a_provider_that_answers_with_no_http_is_a_502(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-x\r\n\r\n")
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert (await read_response(reader)).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        writer.close()


async def test_what_comes_behind_an_answer_reaches_nobody(tmp_path):
    provider = Provider(default=OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        for _ in range(2):
            writer.write(post())
            assert await read_response(reader) == OK
        assert provider.connections == 2
        writer.close()


# HTTP


async def test_interim_answers_pass_and_a_client_is_told_once_to_go_on(tmp_path):
    heads = []

    async def upstream(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(4) == b"body"
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: <%d>\r\n\r\n" % len(heads))
        writer.write(limited() if len(heads) == 1 else OK)
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/messages HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 103")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 103")
        assert await read_response(reader) == OK
        assert len(heads) == 2
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        (b"HEAD /v1/any", b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"),
        (b"GET /v1/any", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET /v1/any", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        (b"GET /v1/any", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n2;x\r\nok\r\n0\r\nt: 1\r\n\r\n"),
    ],
)
async def test_answers_without_and_with_bodies_end_where_they_end(tmp_path, request_line, answer):
    provider = Provider(default=answer)
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        for _ in range(2):
            writer.write(request_line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await reader.readexactly(len(answer)) == answer
        assert provider.connections == 1
        assert [seen.calls[-1] for seen in s.tap.requests] == ["response_end"] * 2
        writer.close()


async def test_an_answer_that_lasts_until_the_connection_s_end_ends_the_client_s(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert (await reader.read()).endswith(b"\r\n\r\nall of it")
        assert s.tap.requests[0].calls[-1] == "response_end"
        writer.close()


async def test_an_answer_that_is_cut_is_cut_for_the_client(tmp_path):
    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        await writer.drain()
        reset(writer)

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        with contextlib.suppress(OSError):
            assert (await reader.read()).endswith(b"only this")
        await until(lambda: s.tap.requests[0].is_over)
        assert s.tap.requests[0].aborted is AbortedBy.UPSTREAM
        writer.close()


async def test_an_early_answer_ends_the_request(tmp_path):
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/messages HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" + bytes(100_000))
        assert await reader.readexactly(len(answer)) == answer
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_is_no_failure_of_the_provider(tmp_path):
    gone = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        gone.set()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        await reader.readuntil(b"hi\r\n")
        writer.close()
        await gone.wait()
        await until(lambda: s.tap.requests[0].is_over)
        assert s.tap.requests[0].aborted is AbortedBy.CLIENT
        await until(lambda: len(s.front) == 0)


async def test_a_client_that_does_not_read_holds_the_provider_back(tmp_path):
    size = 24 << 20
    sent = 0

    async def upstream(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.transport.pause_reading()
        writer.write(post())
        (courier,) = await until(lambda: [pair for pair in s.front._pairs if pair._client.has_unsent])
        await until(lambda: courier._exchange.leg._stream.is_paused)
        assert sum(len(part) for part in courier._client._stream._unsent) <= 1 << 17
        assert sent < size
        writer.transport.resume_reading()
        await reader.readuntil(b"\r\n\r\n")
        received = 0
        while received < size:
            received += len(await reader.read(1 << 20))
        writer.close()


async def test_a_provider_that_does_not_read_holds_the_client_back(tmp_path):
    reads = asyncio.Event()
    size = 24 << 20
    received = 0

    async def upstream(reader, writer):
        nonlocal received
        writer.transport.pause_reading()
        await reads.wait()
        writer.transport.resume_reading()
        await reader.readuntil(b"\r\n\r\n")
        while received < size:
            received += len(await reader.read(1 << 20))
        writer.write(OK)
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed(retry_body_max_bytes=1 << 20)) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/messages HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        writing = asyncio.ensure_future(_write_all(writer, size))
        courier = await until(lambda: next((p for p in s.front._pairs if p._exchange and p._exchange.leg), None))
        await until(lambda: courier._exchange.leg.has_unsent and courier._client.is_paused)
        assert not writing.done()
        reads.set()
        await writing
        assert await read_response(reader) == OK
        assert received == size
        writer.close()


async def _write_all(writer, size):
    for _ in range(size >> 16):
        writer.write(bytes(1 << 16))
        await writer.drain()


async def test_an_upgrade_carries_bytes_both_ways_with_the_next_key(tmp_path):
    heads = []

    async def upstream(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) == 1:
            writer.write(limited())
            await reader.read()
            return
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
        writer.write((await reader.readexactly(4)).upper())
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(b"GET /v1/any HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await reader.readexactly(5) == b"first"
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"PING"
        assert [Provider.field(head, b"x-api-key") for head in heads] == [FIRST, SECOND]
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in heads[1]
        writer.close()
        await until(lambda: len(s.front) == 0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"x" * 70_000), b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
    ],
)
async def test_a_request_that_cannot_be_read_is_answered_and_goes_nowhere(tmp_path, raw, status):
    provider = Provider()
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        writer.write(raw)
        assert (await read_response(reader)).startswith(b"HTTP/1.1 " + status)
        assert await reader.read() == b""
        assert not provider.heads
        assert s.memory.of(UnknownEventsSeen)
        writer.close()


async def test_a_head_that_takes_too_long_is_a_408(tmp_path):
    settings = FrontSettings(relay=RelaySettings(head_timeout_seconds=0.05))
    async with stage(tmp_path, Provider(), rules=keyed(), settings=settings) as s:
        reader, writer = await s.decrypt()
        writer.write(b"GET / HT")
        assert (await read_response(reader)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_an_idle_connection_ends(tmp_path):
    settings = FrontSettings(relay=RelaySettings(idle_timeout_seconds=0.05))
    async with stage(tmp_path, Provider(), rules=keyed(), settings=settings) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert await read_response(reader) == OK
        assert await reader.read() == b""
        writer.close()


# Draining and reload


async def test_a_drained_connection_ends_after_its_answer(tmp_path):
    goes_on = asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        await goes_on.wait()
        writer.write(OK)
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        idle_reader, idle_writer = await s.decrypt()
        writer.write(post())
        await until(lambda: s.tap.requests)
        s.front.drain()
        assert await idle_reader.read() == b""
        goes_on.set()
        assert await read_response(reader) == OK
        assert await reader.read() == b""
        assert await s.front.wait(5)
        writer.close()
        idle_writer.close()


async def test_a_connection_that_is_closed_tells_that_it_was_us(tmp_path):
    async def upstream(reader, writer):
        await reader.read()

    async with stage(tmp_path, upstream, rules=keyed()) as s:
        _, writer = await s.decrypt()
        writer.write(post())
        await until(lambda: s.tap.requests)
        await s.front.close()
        assert s.tap.requests[0].aborted is AbortedBy.PROXY
        writer.close()


@pytest.mark.parametrize("change", [{"status": ProviderStatus.DISABLED}, {"name": "renamed"}])
async def test_a_connection_whose_provider_was_disabled_or_renamed_is_not_routed_to_it_any_more(tmp_path, change):
    provider = Provider()
    async with stage(tmp_path, provider, rules=keyed()) as s:
        reader, writer = await s.decrypt()
        (courier,) = await until(lambda: [pair for pair in s.front._pairs if pair._is_ready])
        # Its next request is on the way already: the connection is not idle any more, so it cannot just end.
        writer.write(post(b"{}", b"x-api-key: mine\r\n")[:20])
        await until(lambda: courier._requests.has_partial_head)
        s.front.replace_providers(ProviderTable([msgspec.structs.replace(PROVIDER, **change)]))
        writer.write(post(b"{}", b"x-api-key: mine\r\n")[20:])
        assert await read_response(reader) == OK
        assert provider.keys == ["mine"]
        assert not s.tap.requests
        assert await reader.read() == b""
        writer.close()


async def test_a_relay_ends_when_its_provider_gets_keys(tmp_path):
    async with stage(tmp_path, Provider()) as s:
        reader, writer = await s.decrypt()
        writer.write(post())
        assert await read_response(reader) == OK
        s.front.upstreams.replace({"anthropic": keyed()})
        s.front.replace_providers(s.front.providers)
        assert await reader.read() == b""
        writer.close()


# The breaker


async def test_a_breaker_opens_for_the_model_that_fails_and_for_no_other(tmp_path):
    down = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    provider = Provider(default=down)
    rules = UpstreamRules("anthropic", "anthropic", breaker=BreakerSettings(failure_threshold=2))
    async with stage(tmp_path, provider, rules=rules) as s:
        reader, writer = await s.decrypt()
        for _ in range(2):
            writer.write(post(b'{"model":"a"}'))
            assert await read_response(reader) == down
        writer.write(post(b'{"model":"a"}'))
        answer = await read_response(reader)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert Provider.field(answer.partition(b"\r\n\r\n")[0], b"retry-after") == "30"
        assert b"circuit breaker is open" in answer
        assert len(provider.heads) == 2
        writer.write(post(b'{"model":"b"}'))
        assert await read_response(reader) == down
        assert [(told.model, told.state) for told in s.memory.of(BreakerChanged)] == [("a", "open")]
        assert [(told.model, told.endpoint) for told in s.memory.of(BreakerRejected)] == [("a", "/v1/messages")]
        assert [seen.aborted for seen in s.tap.requests] == [None, None, AbortedBy.REFUSED, None]
        writer.close()


async def test_a_body_that_must_be_known_is_asked_for(tmp_path):
    provider = Provider()
    rules = UpstreamRules("anthropic", "anthropic", breaker=BreakerSettings())
    async with stage(tmp_path, provider, rules=rules) as s:
        reader, writer = await s.decrypt()
        writer.write(b"POST /v1/messages HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not provider.heads
        writer.write(b'{"model":"a"}')
        assert await read_response(reader) == OK
        assert Provider.field(provider.heads[0], b"expect") is None
        writer.close()
