"""The fake provider's sense: from a request to the answer of the API it names, and how the answer's pieces are delivered.

Knows nothing of HTTP versions: `http1_server` and `http2_server` feed it and frame what it yields.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

from tests.support import anthropic_replies, bedrock_replies, google_replies, openai_replies, replays
from tests.support.coding import chosen, decode, encoder
from tests.support.ledger import Entry, Ledger
from tests.support.pace import Gate, Pace
from tests.support.replies import Reply, document

# A longer request body is hashed and counted, not read.
MAX_READ_BODY_BYTES = 64 << 20

HUGE_EVENT_BYTES = 20 << 20

_MODEL = re.compile(rb'"model"\s*:\s*"([^"]{1,300})"')

# Google's and Bedrock's paths name the model, and Azure's a deployment.
_MODEL_IN_PATH = re.compile(r"/models/([^/:]+):|/(?:model|deployments)/([^/]+)/")


class Broken(Exception):
    """The pace script asks for the connection to end here; `args[0]` is `cut`, `reset` or `stall`."""


class Incoming:
    """A request while it is being read."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._hash = hashlib.sha256()
        self._kept = bytearray()

    def data(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._hash.update(data)
        self.entry.request_bytes += len(data)
        if len(self._kept) < MAX_READ_BODY_BYTES:
            self._kept += data

    def body(self) -> bytes:
        """Return the beginning of the body, content-decoded when it is whole."""
        self.entry.request_sha256 = self._hash.hexdigest()
        coding = self.entry.header("content-encoding") or "identity"
        if self.entry.request_bytes > MAX_READ_BODY_BYTES:
            return bytes(self._kept[:65536])
        return decode(coding, bytes(self._kept))


class Application:
    """Answers requests and keeps the ledger."""

    def __init__(self, gate: Callable[[str], Gate]) -> None:
        self.ledger = Ledger()
        self._gate = gate
        self._serial = 0
        self._connection = 0

    def connected(self) -> int:
        """Return the number of a new connection."""
        self._connection += 1
        return self._connection

    def incoming(
        self, *, connection: int, protocol: str, sni: str, method: str, target: str, head: bytes, headers: list[tuple[str, str]]
    ) -> Incoming:
        """Begin to read a request; its entry stands in the ledger from here on."""
        self._serial += 1
        entry = Entry(self._serial, connection, protocol, sni, method, target, head, headers)
        _, _, query = target.partition("?")
        entry.script = next((unquote(word[5:]) for word in query.split("&") if word.startswith("pace=")), "")
        self.ledger.add(entry)
        return Incoming(entry)

    def pace_of_query(self, entry: Entry) -> Pace:
        """Return the pace that the query asks for: all that is known before the body is read."""
        return Pace.parse(entry.script)

    def answer(self, incoming: Incoming, *, read: bool = True) -> tuple[Reply, Pace]:
        """Return the answer and its pace, and note both in the ledger.

        Args:
            incoming: The request.
            read: Whether its body was read; if not, the query must say all.
        """
        entry = incoming.entry
        body = incoming.body() if read else b""
        request: dict[str, Any] = {}
        if entry.request_bytes <= MAX_READ_BODY_BYTES:
            try:
                decoded = json.loads(body) if body else {}
            except ValueError:
                decoded = {}
            request = decoded if isinstance(decoded, dict) else {}
            entry.model = str(request.get("model", ""))
        elif found := _MODEL.search(body):
            entry.model = found[1].decode()
        if not entry.model and (named := _MODEL_IN_PATH.search(entry.target)):
            entry.model = unquote(named[1] or named[2])
        pace = Pace.parse(f"{entry.model}+{entry.script}+{entry.credential}")
        reply = self._route(entry, request, pace)
        entry.status = reply.status
        entry.usage, entry.response_id, entry.response_model = reply.usage, reply.response_id, reply.response_model
        entry.tool_calls, entry.thoughts = reply.tool_calls, reply.thoughts
        entry.coding = chosen(entry.header("accept-encoding")) if pace.coding == "auto" else pace.coding
        return reply, pace

    def _route(self, entry: Entry, request: dict[str, Any], pace: Pace) -> Reply:
        path = entry.target.partition("?")[0].rstrip("/")
        if name := entry.header(replays.HEADER):
            return replays.reply(name)
        if pace.echo and pace.status >= 400:
            return _echo(entry, pace.status)
        anthropic = "anthropic" in (entry.sni or entry.header("host"))
        api = anthropic_replies if anthropic else openai_replies
        if path.endswith("enerateContent"):
            return google_replies.generate_content(request, pace, entry.serial, target=entry.target)
        if path.endswith("/interactions"):
            return google_replies.interactions(request, pace, entry.serial)
        if "amazonaws.com" in entry.sni:
            operation = path.rpartition("/")[2]
            return bedrock_replies.answer(request, pace, entry.serial, operation=operation, model=entry.model)
        if path.endswith("/messages"):
            return anthropic_replies.messages(request, pace, entry.serial)
        if path.endswith("/chat/completions"):
            return openai_replies.chat_completions(request, pace, entry.serial)
        if path.endswith("/responses"):
            return openai_replies.responses(request, pace, entry.serial)
        if pace.status >= 400:
            return api.error(pace.status)
        if path.endswith("/count_tokens"):
            return anthropic_replies.count_tokens()
        if path.endswith("/models"):
            return api.models()
        if path.endswith("/embeddings"):
            return openai_replies.embeddings(request)
        if path.endswith(("embedContent", "EmbedContents")):
            return google_replies.embed_content()
        if path == "/ledger" and not entry.sni:
            return document(200, [known.as_json() for known in self.ledger.entries()])
        if path.endswith("/blob"):
            return Reply(200, "application/octet-stream", blob(pace.length))
        return document(200, {"received": entry.request_bytes, "sha256": entry.request_sha256})

    async def pieces(self, reply: Reply, pace: Pace, entry: Entry) -> AsyncIterator[bytes]:
        """Yield the answer's content-coded body as the pace script says, and hash it for the ledger.

        Raises:
            Broken: The connection is to end here.
        """
        digest = hashlib.sha256()
        gate = self._gate(pace.gate) if pace.gate else None
        coder = encoder(entry.coding)
        async for piece in self._paced(reply, pace, gate):
            coded = coder.encode(piece)
            digest.update(coded)
            entry.response_bytes += len(coded)
            entry.response_sha256 = digest.hexdigest()
            if gate is not None:
                gate.sent_pieces += 1
            yield coded
        rest = coder.finish()
        digest.update(rest)
        entry.response_bytes += len(rest)
        entry.response_sha256 = digest.hexdigest()
        if rest:
            yield rest

    async def _paced(self, reply: Reply, pace: Pace, gate: Gate | None) -> AsyncIterator[bytes]:
        for number, piece in enumerate(reply.pieces):
            if number and pace.pause:
                await asyncio.sleep(pace.pause)
            if pace.endless:
                # A connection that takes all at once never makes this one wait, and nobody else would have a turn.
                await asyncio.sleep(0)
            if number and gate is not None:
                await gate.wait()
            match number:
                case pace.cut:
                    raise Broken("cut")
                case pace.reset:
                    raise Broken("reset")
                case pace.stall:
                    raise Broken("stall")
                case pace.error:
                    yield reply.error_piece
                    return
                case pace.broken:
                    yield b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": \n\n'
                    continue
                case pace.huge:
                    yield b'event: ping\ndata: {"type":"ping","padding":"' + b"x" * HUGE_EVENT_BYTES + b'"}\n\n'
            yield piece
        # A document is one piece; what stands behind it breaks its end.
        if pace.cut >= 1 and reply.content_type == "application/json":
            raise Broken("cut")


def _echo(entry: Entry, status: int) -> Reply:
    """Return an error that repeats what the request was authenticated with, in the message where people look for it."""
    known = ("x-api-key", "authorization", "api-key", "x-goog-api-key", "cookie")
    given = [entry.header(name) for name in known if entry.header(name)] + [entry.target]
    error = {"type": "invalid_request_error", "message": f"Incorrect credential provided: {', '.join(given)}."}
    return document(status, {"type": "error", "error": error})


def blob(length: int) -> list[bytes]:
    """Return `length` bytes that no two places of a megabyte share, in pieces of 64 KB."""
    pattern = b"".join(number.to_bytes(4, "big") for number in range(1 << 14))
    return [pattern[: min(65536, length - start)] for start in range(0, length, 65536)]
