"""Questions to an identity service, over real TLS: bounded, and to one place alone."""

import asyncio
import ssl

import pytest
import trustme

from aiproxyd.exceptions import ConfigError
from aiproxyd.identity import web
from aiproxyd.identity.answer import SourceUnavailable
from aiproxyd.identity.web import Service


class Server:
    """Answers each request with `answer`, whole or in parts, and keeps what was asked."""

    def __init__(self, folder):
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        self.asked = []
        self.release = asyncio.Event()
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.release.set()
        self._server.close()
        self._server.close_clients()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        try:
            while True:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                if self.answer is None:
                    await self.release.wait()
                    return
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server(tmp_path):
    async with Server(tmp_path) as server:
        yield server


@pytest.fixture
async def service(server):
    service = Service("jwt", setting="x", ca_file=server.ca_file, timeout_seconds=20)
    yield service
    await service.close()


async def reason_of(question):
    with pytest.raises(SourceUnavailable) as caught:
        await question
    return caught.value.reason


async def test_an_answer_is_its_status_and_body_and_a_connection_is_used_again(server, service):
    for _ in range(3):
        assert await service.get(server.url + "/a", {"x-token": "t"}, {"q": "1"}) == (200, b"{}")
    assert all(head.startswith(b"GET /a?q=1 HTTP/1.1\r\n") for head in server.asked)
    assert all(b"\r\nx-token: t\r\n" in head for head in server.asked)


async def test_a_redirect_is_an_answer_and_is_not_followed(server, service):
    server.answer = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
    assert await service.get(server.url, {"x-token": "t"}) == (302, b"")
    assert len(server.asked) == 1


async def test_a_proxy_of_the_environment_is_not_used(server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    service = Service("jwt", setting="x", ca_file=server.ca_file, timeout_seconds=20)
    assert (await service.get(server.url))[0] == 200
    await service.close()


async def test_silence_is_a_timeout(server):
    server.answer = None
    service = Service("jwt", setting="x", ca_file=server.ca_file, timeout_seconds=0.05)
    assert await reason_of(service.get(server.url)) == "timeout"
    await service.close()


async def test_an_answer_without_end_is_cut(server, service, monkeypatch):
    monkeypatch.setattr(web, "MAX_ANSWER_BYTES", 1000)
    server.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001
    assert await reason_of(service.get(server.url)) == "malformed"
    server.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000
    assert len((await service.get(server.url))[1]) == 1000


async def test_what_is_no_http_and_whose_certificate_is_unknown_cannot_be_reached(server, service):
    server.answer = b"SSH-2.0-x\r\n\r\n"
    assert await reason_of(service.get(server.url)) == "unreachable"
    untrusting = Service("jwt", setting="x", ca_file=None, timeout_seconds=20)
    asked = len(server.asked)
    assert await reason_of(untrusting.get(server.url)) == "unreachable"
    assert len(server.asked) == asked, "nothing is said to a stranger"
    await untrusting.close()


async def test_questions_beyond_those_that_may_wait_fail_at_once(server, service, monkeypatch):
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(web, "MAX_WAITING", 1)
    server.answer = None
    waiting = [asyncio.ensure_future(service.get(server.url)) for _ in range(2)]
    await asyncio.sleep(0)
    assert await reason_of(service.get(server.url)) == "busy"
    for question in waiting:
        question.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    server.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert (await service.get(server.url))[0] == 204


async def test_one_that_was_closed_says_so(server, service):
    await service.close()
    assert await reason_of(service.get(server.url)) == "replaced"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_roots_that_cannot_be_used_names_its_setting(tmp_path, content):
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"auth\.x\.ca_file: {file} cannot be used"):
        Service("x", setting="auth.x.ca_file", ca_file=file, timeout_seconds=1)
