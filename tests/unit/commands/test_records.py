"""Twin of aiproxyd/commands/records.py: a store and an admin server give the same records, and what goes wrong is one sentence."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from aiproxyd.commands.records import LocalRecords, RemoteRecords, answer_of, open_records, remote_client
from aiproxyd.exceptions import AiproxydError
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.usage_report import Dimension
from tests.support.observations import START, life, of_worker


@pytest.fixture
async def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'store.sqlite3'}"
    store = await Store.open(url)
    lines = [line for number in range(5) for line in life(f"{number}", at=START + number, user=("alice", "bob")[number % 2])]
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    await store.close()
    return url


def test_a_store_is_read_directly(url: str) -> None:
    with open_records(lambda: url, "", "") as records:
        assert isinstance(records, LocalRecords)
        assert records.count(Selection()) == 5
        page = records.interceptions(Selection(), limit=2)
        assert [record["id"] for record in page] == ["4", "3"]
        assert [r["id"] for r in records.interceptions(Selection(), after_id="3", limit=9)] == ["2", "1", "0"]
        assert records.interception("2") is not None
        assert records.interception("none") is None
        assert [session["id"] for session in records.sessions(Selection(initiator="bob"), 10)] == ["3", "1"]
        detail = records.session("3", "")
        assert detail is not None
        assert [thread["id"] for thread in detail["threads"]] == ["3"]
        assert records.session("none", "") is None
        assert records.usage(Selection(), [Dimension.USER])["count"] == 2
        assert records.usage(Selection(), [])["usage"] == []
        with pytest.raises(AiproxydError, match="after_id: interception 'none' not found"):
            records.interceptions(Selection(), after_id="none", limit=1)


class Answers(BaseHTTPRequestHandler):
    """Keeps what it is asked and answers what it is told."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    status = 200
    body = b"{}"

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("authorization")))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[tuple[str, type[Answers]]]:
    answers = type("OwnAnswers", (Answers,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", answers
        finally:
            http.shutdown()
            thread.join()


def test_a_selection_becomes_parameters_and_the_token_a_header(server: tuple[str, type[Answers]]) -> None:
    url, answers = server
    answers.body = b'{"results": [{"id": "x"}], "count": 7}'
    after = datetime(2026, 1, 31, tzinfo=UTC)
    with open_records(lambda: pytest.fail("no store is needed"), url + "/", "secret") as records:
        assert isinstance(records, RemoteRecords)
        selection = Selection(initiator="alice", model="a b", started_after=after)
        assert records.interceptions(selection, after_id="y", limit=3) == [{"id": "x"}]
        assert records.count(Selection()) == 7
    (path, token), (counted, _) = answers.asked
    assert token == "Bearer secret"
    parameters = dict(httpx.QueryParams(path.partition("?")[2]))
    assert parameters == {
        "initiator": "alice",
        "model": "a b",
        "started_after": "2026-01-31T00:00:00+00:00",
        "limit": "3",
        "after_id": "y",
    }
    assert counted == "/api/v2/ai-gateway/interceptions?limit=1"


def test_what_is_missing_is_none_and_an_id_cannot_lead_elsewhere(server: tuple[str, type[Answers]]) -> None:
    url, answers = server
    answers.status, answers.body = 404, b'{"message": "Session not found."}'
    with open_records(str, url, "") as records:
        assert records.session("../users?x=1#y", "") is None
        assert records.interception("00000000-0000-4000-8000-000000000000") is None
    assert answers.asked[0][0].startswith("/api/v2/ai-gateway/sessions/..%2Fusers%3Fx%3D1%23y?")
    assert answers.asked[0][1] is None


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, b'{"message": "A token is needed."}', "status 401: A token is needed."),
        (400, b'{"message": "No.", "validations": [{"field": "limit", "detail": "Too large."}]}', "status 400: No. Too large."),
        (502, b"<html>", "answers with status 502 and no JSON"),
        (500, b"[]", "status 500: "),
    ],
)
def test_a_refusal_is_told_in_the_server_s_words(
    server: tuple[str, type[Answers]], status: int, body: bytes, sentence: str
) -> None:
    url, answers = server
    answers.status, answers.body = status, body
    with open_records(str, url, "") as records, pytest.raises(AiproxydError) as raised:
        records.count(Selection())
    assert sentence in str(raised.value)


def test_a_server_that_is_not_there_and_a_url_that_is_none() -> None:
    with open_records(str, "http://127.0.0.1:1", "") as records, pytest.raises(AiproxydError, match="cannot be asked"):
        records.count(Selection())
    with pytest.raises(AiproxydError, match="is not a URL such as"):
        remote_client("127.0.0.1:8889", "")
    request = httpx.Request("GET", "http://127.0.0.1/")
    assert answer_of(httpx.Response(200, json={"a": 1}, request=request)) == {"a": 1}
