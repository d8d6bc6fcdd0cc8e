"""The fake provider over a WebSocket: the Responses API and Realtime, one message an event; anything else is sent back as it came.

Each turn has an entry of its own in the ledger, with `WS` for its method; the handshake keeps the one it has.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.support import openai_replies
from tests.support.application import Application
from tests.support.ledger import Entry
from tests.support.pace import Pace
from tests.support.replies import Reply, words


async def serve(
    application: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, handshake: Entry
) -> None:
    """Accept a WebSocket and answer it until one side closes."""
    websocket = WSConnection(ConnectionType.SERVER)
    websocket.receive_data(head)
    handshake.status = 101
    parts: list[str] = []
    conversation = _Realtime() if "/realtime" in handshake.target else _Responses()
    while True:
        for event in websocket.events():
            match event:
                case Request():
                    writer.write(websocket.send(AcceptConnection(extensions=[PerMessageDeflate()])))
                    for said in conversation.greeting():
                        writer.write(websocket.send(TextMessage(data=json.dumps(said))))
                case TextMessage():
                    parts.append(event.data)
                    if event.message_finished:
                        text = "".join(parts)
                        parts.clear()
                        if not await _answer(application, conversation, text, handshake, websocket, writer):
                            return
                case BytesMessage():
                    writer.write(websocket.send(BytesMessage(data=event.data, message_finished=event.message_finished)))
                case Ping() | CloseConnection():
                    writer.write(websocket.send(event.response()))
                    if isinstance(event, CloseConnection):
                        await writer.drain()
                        handshake.end = "complete"
                        return
        await writer.drain()
        data = await reader.read(65536)
        if not data:
            handshake.end = "client_left"
            return
        websocket.receive_data(data)


async def _answer(
    application: Application,
    conversation: "_Responses | _Realtime",
    text: str,
    handshake: Entry,
    websocket: WSConnection,
    writer: asyncio.StreamWriter,
) -> bool:
    """Answer one message; return whether the connection goes on."""
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        writer.write(websocket.send(TextMessage(data=text)))
        return True
    request = conversation.turn(message)
    if request is None:
        return True
    incoming = application.incoming(
        connection=handshake.connection,
        protocol="websocket",
        sni=handshake.sni,
        method="WS",
        target=handshake.target,
        head=b"",
        headers=handshake.headers,
    )
    entry = incoming.entry
    entry.model = str(request.get("model", ""))
    pace = Pace.parse(f"{entry.model}+{handshake.script}")
    reply, messages = conversation.answer(request, pace, entry.serial)
    entry.status, entry.usage, entry.response_id, entry.response_model = (
        reply.status,
        reply.usage,
        reply.response_id,
        reply.response_model,
    )
    entry.tool_calls, entry.thoughts = reply.tool_calls, reply.thoughts
    for number, said in enumerate(messages):
        if pace.pause:
            await asyncio.sleep(pace.pause)
        if number == pace.cut:
            entry.end = "cut"
            return False
        writer.write(websocket.send(TextMessage(data=json.dumps(said))))
        await writer.drain()
    entry.end = "complete"
    application.ledger.changed()
    return True


class _Responses:
    """The Responses API."""

    def greeting(self) -> list[dict[str, Any]]:
        return []

    def turn(self, message: dict[str, Any]) -> dict[str, Any] | None:
        return message if message.get("type") == "response.create" else None

    def answer(self, request: dict[str, Any], pace: Pace, serial: int) -> tuple[Reply, Iterator[dict[str, Any]]]:
        warms_up = request.get("generate") is False
        reply = openai_replies.responses(request | {"stream": True}, pace, serial)
        if pace.status >= 400:
            (body,) = reply.pieces
            return reply, iter([{"type": "error", "status": pace.status, **json.loads(body)}])
        if warms_up:
            reply.usage = dict.fromkeys(reply.usage, 0)
            reply.tool_calls, reply.thoughts = [], []
        messages = (json.loads(piece.partition(b"data: ")[2]) for piece in reply.pieces)
        if warms_up:
            messages = (said for said in messages if said["type"] in {"response.created", "response.completed"})
        if stream_id := request.get("stream_id"):
            messages = (said | {"stream_id": stream_id} for said in messages)
        return reply, iter(messages)


class _Realtime:
    """The Realtime API, as far as text, tools and figures go."""

    model = "gpt-realtime"
    transcriber = ""

    def greeting(self) -> list[dict[str, Any]]:
        return [{"type": "session.created", "event_id": "event_0", "session": {"type": "realtime", "model": self.model}}]

    def turn(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if message.get("type") == "session.update":
            session = message.get("session", {})
            self.model = session.get("model", self.model)
            self.transcriber = session.get("audio", {}).get("input", {}).get("transcription", {}).get("model", "")
        if message.get("type") == "input_audio_buffer.commit" and self.transcriber:
            return {"model": self.transcriber, "transcribes": True}
        return {"model": self.model} if message.get("type") == "response.create" else None

    def answer(self, request: dict[str, Any], pace: Pace, serial: int) -> tuple[Reply, Iterator[dict[str, Any]]]:
        if request.get("transcribes"):
            return self._transcription(serial)
        id_ = f"resp_{serial:08d}"
        usage = {
            "input_tokens": 100 + serial,
            "output_tokens": 20 + pace.events,
            "cache_read_input_tokens": serial % 7,
            "cache_write_input_tokens": 0,
        }
        reply = Reply(200, "", [], usage=usage, response_id=id_)
        return reply, self._messages(reply, pace)

    def _transcription(self, serial: int) -> tuple[Reply, Iterator[dict[str, Any]]]:
        usage = {
            "input_tokens": 30 + serial,
            "output_tokens": 4,
            "cache_read_input_tokens": 0,
            "cache_write_input_tokens": 0,
        }
        said = {
            "type": "conversation.item.input_audio_transcription.completed",
            "event_id": "event_6",
            "item_id": f"item_{serial:08d}",
            "content_index": 0,
            "transcript": "What is the weather?",
            "usage": {
                "type": "tokens",
                "total_tokens": usage["input_tokens"] + 4,
                "input_tokens": usage["input_tokens"],
                "input_token_details": {"text_tokens": 0, "audio_tokens": usage["input_tokens"]},
                "output_tokens": 4,
            },
        }
        return Reply(200, "", [], usage=usage, response_id=said["item_id"]), iter([said])

    def _messages(self, reply: Reply, pace: Pace) -> Iterator[dict[str, Any]]:
        id_, usage = reply.response_id, reply.usage
        response = {"object": "realtime.response", "id": id_, "status": "in_progress", "output": [], "usage": None}
        item = {"id": f"item_{id_}", "type": "message", "role": "assistant", "content": []}
        at = {"response_id": id_, "item_id": item["id"], "output_index": 0, "content_index": 0}
        yield {"type": "response.created", "event_id": "event_1", "response": response}
        yield {"type": "response.output_item.added", "event_id": "event_2", "response_id": id_, "output_index": 0, "item": item}
        for word in words(pace):
            yield {"type": "response.output_audio_transcript.delta", "event_id": "event_3", "delta": word, **at}
        yield {"type": "response.output_item.done", "event_id": "event_4", "response_id": id_, "output_index": 0, "item": item}
        whole = usage["input_tokens"] + usage["cache_read_input_tokens"]
        figures = {
            "total_tokens": whole + usage["output_tokens"],
            "input_tokens": whole,
            "output_tokens": usage["output_tokens"],
            "input_token_details": {
                "text_tokens": whole - 11,
                "audio_tokens": 11,
                "cached_tokens": usage["cache_read_input_tokens"],
            },
            "output_token_details": {"text_tokens": 5, "audio_tokens": usage["output_tokens"] - 5},
        }
        done = response | {"status": "completed", "output": [item], "usage": figures}
        yield {"type": "response.done", "event_id": "event_5", "response": done}
