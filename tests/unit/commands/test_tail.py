"""Twin of aiproxyd/commands/tail.py: what a daemon says it does, as lines that a terminal only shows."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

STREAM = b"""retry: 2000

id: 1
event: started
data: {"at": "2026-01-31T08:00:00Z", "user": "alice", "route": "/v1/messages"}

: still here

id: 2
event: described
data: {"at": "2026-01-31T08:00:01Z", "user": "alice", "model": "claude", "prompt": "Fix\\n  it \\u001b[2J\\u202e"}

id: 3
event: tool
data: {"at": "2026-01-31T08:00:02Z", "user": "alice", "model": "claude", "tool": "Bash", "input": "PADDING"}

id: 4
event: ended
data: {"at": "2026-01-31T08:00:03Z", "user": "alice", "model": "claude", "outcome": "upstream_error", "error_type": "overloaded", \
"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5, "duration_seconds": 1.25}

event: refused
data: {"at": "2026-01-31T08:00:04Z", "host": "example.com", "reason": "blocked"}

event: dropped
data: {"count": 7}

event: thought
data: {"at": "2026-01-31T08:00:05Z", "content": null}

event: ended
data: {"at": "2026-01-31T08:00:06Z", "outcome": "interrupted", "duration_seconds": 0}

""".replace(b"PADDING", b"x" * 400)


class Feed(BaseHTTPRequestHandler):
    """Sends the stream once, to whoever has the token."""

    def do_GET(self) -> None:
        known = self.headers.get("authorization") == "Bearer secret"
        body = STREAM if known else b'{"message": "A token is needed."}'
        self.send_response(200 if known else 401)
        self.send_header("content-type", "text/event-stream" if known else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Feed) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def test_events_are_lines_for_people_and_nothing_in_them_is_obeyed(aiproxyd, url: str) -> None:
    done = aiproxyd("tail", "--url", url, "--token", "secret")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "08:00:00  started    alice  /v1/messages"
    assert lines[1] == "08:00:01  described  alice  claude  Fix it \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"
    assert lines[2].startswith("08:00:02  tool       alice  claude  Bash xxx")
    assert (len(lines[2]), lines[2][-1]) == (160, "…")
    assert lines[3] == "08:00:03  ended      alice  claude  upstream_error, overloaded 3 in, 4 cached, 5 out 1.2 s"
    assert lines[4] == "08:00:04  refused    example.com: blocked"
    assert lines[5] == "dropped    7 events were missed"
    assert lines[6].split() == ["08:00:05", "thought"]
    assert lines[7].split() == ["08:00:06", "ended", "interrupted", "0.0", "s"]


def test_programs_get_every_key_and_it_stops_after_so_many(aiproxyd, url: str) -> None:
    done = aiproxyd("tail", "--url", url, "--token", "secret", "--output", "jsonl", "--lines", "2")
    first, second = [json.loads(line) for line in done.out.splitlines()]
    assert first == {"kind": "started", "at": "2026-01-31T08:00:00Z", "user": "alice", "route": "/v1/messages"}
    assert second["prompt"].startswith("Fix\n")
    assert not {"\x1b", "\u202e"} & set(done.out)


def test_a_refusal_and_a_server_that_is_not_there_are_one_sentence(aiproxyd, url: str) -> None:
    refused = aiproxyd("tail", "--url", url, "--token", "wrong")
    assert (refused.status, refused.err) == (1, "aiproxyd: the daemon answers with status 401: A token is needed.\n")
    away = aiproxyd("tail", "--url", "http://127.0.0.1:1")
    assert away.status == 1
    assert "http://127.0.0.1:1 cannot be asked" in away.err
    assert "start it with `aiproxyd run`" in aiproxyd("tail").err
