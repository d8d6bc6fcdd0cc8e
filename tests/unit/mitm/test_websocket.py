"""Stories of one WebSocket, told through the tap: frames of both sides in, one interception a turn out."""

import json

import pytest
from structlog.testing import capture_logs

from aiproxyd.mitm.decrypted import AbortedBy, TapSettings
from aiproxyd.mitm.tap import RequestTap, Tap
from aiproxyd.mitm.websocket import MAX_OPEN_TURNS
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    PassthroughEnded,
    PassthroughStarted,
    ThoughtRecorded,
    ToolCalled,
    UnknownEventsSeen,
)
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.conversations import Said
from aiproxyd.providers.openai_responses_turns import ResponsesConversation
from tests.support.observing import KeptJournal, SteppedReporter, connection_to
from tests.support.websocket_frames import MASK, Deflater, frame

CONNECTION = connection_to(
    "api.openai.com",
    "openai",
    (
        Endpoint("/v1/responses", methods=("GET",), websocket="openai.responses"),
        Endpoint("/v1/realtime", methods=("GET",), websocket="openai.realtime"),
    ),
)


class Talk:
    """Both sides of one connection after its 101."""

    def __init__(
        self,
        target: str = "/v1/responses",
        *,
        deflate: bool = False,
        settings: TapSettings | None = None,
        extensions: str | None = None,
        **options: object,
    ) -> None:
        self.journal = KeptJournal()
        tap = Tap(SteppedReporter(self.journal), settings or TapSettings(), **options)  # type: ignore[arg-type]
        fields = [
            ("User-Agent", "codex_exec/0.169.0 (Debian)"),
            ("session-id", "s-1"),
            ("x-client-request-id", "same-for-all"),
            ("Upgrade", "websocket"),
        ]
        self.tap: RequestTap = tap.open(CONNECTION, RequestHead("GET", target, Headers(fields)))
        self.tap.request_end()
        agreed = extensions if extensions is not None else "permessage-deflate" if deflate else ""
        answer = [("Upgrade", "websocket")] + ([("Sec-WebSocket-Extensions", agreed)] if agreed else [])
        self.tap.response_head(ResponseHead(101, Headers(answer)))
        self._client, self._server = (Deflater(takeover=True) if deflate else None for _ in range(2))

    def client(self, message: object) -> None:
        self.tap.upgraded_request_data(self._framed(message, self._client, MASK))

    def server(self, *messages: object) -> None:
        for message in messages:
            self.tap.upgraded_response_data(self._framed(message, self._server, b""))

    @staticmethod
    def _framed(message: object, deflater: Deflater | None, mask: bytes) -> bytes:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        return frame(deflater(data), rsv=4, mask=mask) if deflater else frame(data, mask=mask)

    def all[O](self, kind: type[O]) -> list[O]:
        return [observation for observation in self.journal.observations if isinstance(observation, kind)]

    def one[O](self, kind: type[O]) -> O:
        (found,) = self.all(kind)
        return found

    @property
    def unknown(self) -> list[dict[str, int]]:
        return [seen.counts for seen in self.all(UnknownEventsSeen)]


def create(text: str | None = "Hi", **more: object) -> dict[str, object]:
    items = [] if text is None else [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}]
    return {"type": "response.create", "model": "gpt-5.5", "input": items, **more}


def created(id_: str = "resp_1", **more: object) -> dict[str, object]:
    response = {"id": id_, "model": "gpt-5.5-2026", "status": "in_progress"} | more.pop("response", {})  # type: ignore[operator]
    return {"type": "response.created", "response": response, **more}


def completed(id_: str = "resp_1", tokens: int = 7, **more: object) -> dict[str, object]:
    usage = {"input_tokens": 10 * tokens, "output_tokens": tokens, "total_tokens": 11 * tokens}
    response = {"id": id_, "model": "gpt-5.5-2026", "status": "completed", "output": [], "usage": usage}
    return {"type": "response.completed", "response": response, **more}


TOOL_CALL = {
    "type": "response.output_item.done",
    "output_index": 0,
    "item": {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "ls", "arguments": "{}"},
}


@pytest.mark.parametrize("deflate", [False, True])
def test_each_turn_is_an_interception_and_the_handshake_a_passthrough(deflate: bool) -> None:
    talk = Talk(deflate=deflate)
    assert talk.one(PassthroughStarted).route == "/v1/responses"
    assert talk.one(PassthroughEnded).status_code == 101
    talk.client(create("List the files."))
    started = talk.one(InterceptionStarted)
    assert talk.journal.durable > talk.journal.observations.index(started), (
        "the turn is on disk before its message is forwarded"
    )
    assert (started.api, started.method, started.route) == ("openai.responses", "GET", "/v1/responses")
    assert (started.client, started.client_version, started.client_request_id) == ("Codex", "0.169.0", "")
    described = talk.one(InterceptionDescribed)
    assert (described.request_model, described.prompt, described.streaming) == ("gpt-5.5", "List the files.", True)
    assert (described.client_session_id, described.metadata["transport"]) == ("s-1", "websocket")
    talk.server(created(), TOOL_CALL, completed(tokens=7))
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.status_code, ended.response_id) == ("completed", 200, "resp_1")
    assert (ended.usage.input_tokens, ended.usage.output_tokens, ended.usage_source) == (70, 7, "reported")
    assert talk.one(ToolCalled).call_id == "call_1"
    talk.client(
        create(
            None, previous_response_id="resp_1", input=[{"type": "function_call_output", "call_id": "call_1", "output": "a"}]
        )
    )
    talk.server(created("resp_2"), completed("resp_2", tokens=3))
    second = talk.all(InterceptionDescribed)[1]
    assert second.correlating_tool_call_id == "call_1"
    assert second.metadata["previous_response_id"] == "resp_1"
    assert [end.usage.output_tokens for end in talk.all(InterceptionEnded)] == [7, 3]
    talk.tap.upgraded_end(AbortedBy.CLIENT)
    assert len(talk.all(InterceptionEnded)) == len(talk.all(InterceptionStarted)) == 2
    assert talk.unknown == []


def test_a_warm_up_is_marked_and_has_no_prompt() -> None:
    talk = Talk()
    talk.client(create("You are a coding agent.", generate=False))
    described = talk.one(InterceptionDescribed)
    assert (described.prompt, described.has_prompt, described.metadata["warmup"]) == (None, False, "true")
    response = completed()
    response["response"]["usage"] = None  # type: ignore[index]
    talk.server(created(), response)
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.usage_source, ended.usage) == ("completed", "none", TokenUsage())


def test_turns_of_one_lane_are_answered_in_order_and_lanes_side_by_side() -> None:
    talk = Talk()
    for text, lane in [("a1", "a"), ("a2", "a"), ("b1", "b")]:
        talk.client(create(text, stream_id=lane))
    talk.server(created("ra1", stream_id="a"), created("rb1", stream_id="b"))
    talk.server(completed("rb1", 5, stream_id="b"), completed("ra1", 1, stream_id="a"))
    talk.server(created("ra2", stream_id="a"), completed("ra2", 2, stream_id="a"))
    prompts = {described.interception_id: described.prompt for described in talk.all(InterceptionDescribed)}
    ends = {prompts[end.interception_id]: (end.response_id, end.usage.output_tokens) for end in talk.all(InterceptionEnded)}
    assert ends == {"a1": ("ra1", 1), "a2": ("ra2", 2), "b1": ("rb1", 5)}


def test_a_refused_turn_has_the_status_and_the_words_of_the_error() -> None:
    talk = Talk()
    talk.client(create(previous_response_id="resp_gone", stream_id="x"))
    error = {"code": "previous_response_not_found", "message": "Previous response not found.", "type": "invalid_request_error"}
    talk.server({"type": "error", "status": 400, "error": error})
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.status_code, ended.error_type) == ("upstream_error", 400, "bad_request")
    assert ended.error_message == "Previous response not found."
    talk.server(completed())
    assert talk.one(InterceptionEnded) is ended, "what follows an error belongs to nobody"


def test_an_error_in_the_middle_keeps_what_was_said() -> None:
    talk = Talk()
    talk.client(create())
    talk.server(created(), TOOL_CALL, {"type": "error", "error": {"code": "server_error", "message": "Oh."}})
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.status_code, ended.error_message) == ("upstream_error", 200, "Oh.")
    assert talk.one(ToolCalled).tool == "ls"


def test_a_successor_that_steering_began_is_a_turn_with_what_was_queued_for_a_prompt() -> None:
    talk = Talk()
    talk.client(create("Plan it."))
    talk.server(created("resp_1"))
    talk.client({"type": "response.steer", "previous_response_id": "resp_1", "input": "Smaller, please."})
    talk.server({"type": "response.steer.accepted", "steer": {"id": "steer_1", "previous_response_id": "resp_1"}})
    cut = completed("resp_1", 1) | {"type": "response.incomplete"}
    cut["response"] |= {"status": "incomplete", "incomplete_details": {"reason": "steered"}}  # type: ignore[operator]
    talk.server(cut, created("resp_2", response={"previous_response_id": "resp_1"}), completed("resp_2", 2))
    first, second = talk.all(InterceptionDescribed)
    assert (second.prompt, second.request_model) == ("Smaller, please.", "gpt-5.5-2026")
    assert second.metadata["previous_response_id"] == "resp_1"
    ends = {end.interception_id: end for end in talk.all(InterceptionEnded)}
    assert ends[first.interception_id].finish_reason == "incomplete:steered"
    assert ends[second.interception_id].usage.output_tokens == 2
    assert talk.unknown == []


@pytest.mark.parametrize(("by", "outcome"), [(AbortedBy.CLIENT, "client_aborted"), (AbortedBy.PROXY, "interrupted")])
def test_what_is_open_ends_with_the_connection(by: AbortedBy, outcome: str) -> None:
    talk = Talk()
    talk.client(create("answered in part"))
    talk.client(create("not answered"))
    talk.server(created())
    talk.tap.upgraded_end(by, "it left")
    talk.tap.upgraded_end(AbortedBy.UPSTREAM)
    talk.server(completed())
    assert [end.outcome for end in talk.all(InterceptionEnded)] == [outcome, outcome]


@pytest.mark.parametrize(("from_client", "outcome"), [(True, "client_aborted"), (False, "upstream_aborted")])
def test_a_close_frame_ends_what_is_open(from_client: bool, outcome: str) -> None:
    talk = Talk()
    talk.client(create())
    close = frame(b"\x03\xe8", 8)
    if from_client:
        talk.tap.upgraded_request_data(close)
    else:
        talk.tap.upgraded_response_data(close)
    assert talk.one(InterceptionEnded).outcome == outcome


def test_a_side_that_breaks_the_framing_ends_what_is_open_as_not_understood() -> None:
    talk = Talk()
    talk.client(create())
    talk.server(created())
    talk.tap.upgraded_response_data(b"\x8b\x00")
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.anomaly[:35]) == ("parse_failed", "the WebSocket cannot be followed: a")
    assert talk.unknown == [{"websocket:malformed": 1}]
    talk.client(create())
    assert len(talk.all(InterceptionStarted)) == 1


def test_messages_that_say_nothing_are_counted_once() -> None:
    talk = Talk()
    for message in (b"hello", b"[1]", b'"x"', b"{not json"):
        talk.client(message)
        talk.server(message)
    talk.tap.upgraded_request_data(frame(b"{}", 2, mask=MASK))
    assert talk.unknown == [{"websocket:unreadable_message": 1}]
    assert talk.all(InterceptionStarted) == []


def test_an_extension_of_nobody_leaves_the_connection_unread() -> None:
    talk = Talk(extensions="x-shout")
    talk.client(create())
    assert talk.all(InterceptionStarted) == []
    assert talk.unknown == [{"websocket:unknown_extension": 1}]


def test_turns_and_answers_above_the_limits_are_recorded_as_not_understood() -> None:
    talk = Talk(settings=TapSettings(max_request_body_bytes=1000, max_response_body_bytes=1000))
    talk.client(create("x" * 2000))
    assert talk.one(InterceptionDescribed).anomaly == "the message is larger than what is read of one"
    talk.server(created(), completed() | {"padding": "y" * 5000})
    assert talk.one(InterceptionEnded).outcome == "parse_failed"
    talk.client(create("small"))
    talk.server(created("resp_2"), completed("resp_2"))
    assert talk.all(InterceptionEnded)[1].outcome == "completed"


def test_a_client_that_asks_without_end_is_followed_so_far() -> None:
    talk = Talk()
    for _ in range(MAX_OPEN_TURNS + 3):
        talk.client(create())
    assert len(talk.all(InterceptionStarted)) == MAX_OPEN_TURNS
    assert talk.unknown == [{"websocket:too_many_turns": 1}]


def test_content_stays_out_of_the_journal_when_it_is_not_kept() -> None:
    talk = Talk(settings=TapSettings(record_content=False))
    talk.client(create("secret"))
    talk.server(created(), TOOL_CALL, completed())
    described = talk.one(InterceptionDescribed)
    assert (described.prompt, described.has_prompt) == (None, True)
    assert talk.one(ToolCalled).arguments is None
    assert talk.all(ThoughtRecorded) == []


def test_a_fault_of_ours_ends_every_turn_as_not_understood() -> None:
    class Faulty(ResponsesConversation):
        def from_server(self, message: bytes, *, is_whole: bool) -> Said:
            raise ZeroDivisionError

    talk = Talk(conversations={"openai.responses": Faulty})
    talk.client(create("one"))
    talk.client(create("two"))
    with capture_logs() as logs:
        talk.server(created())
    assert [entry["event"] for entry in logs] == ["the tap failed; the request is forwarded unobserved"]
    assert [end.outcome for end in talk.all(InterceptionEnded)] == ["parse_failed", "parse_failed"]
    assert not talk.tap.is_upgraded


# Realtime


def realtime_done(id_: str, status: str = "completed", **more: object) -> dict[str, object]:
    usage = {
        "total_tokens": 253,
        "input_tokens": 132,
        "output_tokens": 121,
        "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "image_tokens": 0, "cached_tokens": 64},
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
    }
    return {"type": "response.done", "response": {"id": id_, "status": status, "output": [], "usage": usage, **more}}


def test_a_realtime_turn_asks_with_the_last_item_and_costs_audio() -> None:
    talk = Talk("/v1/realtime?model=gpt-realtime", deflate=True)
    talk.server({"type": "session.created", "session": {"type": "realtime", "model": "gpt-realtime-2026"}})
    content = [{"type": "input_text", "text": "Say hello"}]
    talk.client({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}})
    talk.client({"type": "response.create"})
    described = talk.one(InterceptionDescribed)
    assert (described.prompt, described.request_model) == ("Say hello", "gpt-realtime-2026")
    call = {"type": "function_call", "id": "item_1", "call_id": "call_9", "name": "wave", "arguments": '{"hand":1}'}
    talk.server(
        {"type": "rate_limits.updated", "rate_limits": []},
        {"type": "response.created", "response": {"id": "resp_r1", "status": "in_progress"}},
        {"type": "response.output_audio_transcript.delta", "response_id": "resp_r1", "output_index": 0, "delta": "Hello"},
        {"type": "response.output_audio.delta", "response_id": "resp_r1", "output_index": 0, "delta": "AAAA"},
        {"type": "response.output_item.added", "response_id": "resp_r1", "output_index": 1, "item": call | {"arguments": ""}},
        {"type": "response.output_item.done", "response_id": "resp_r1", "output_index": 1, "item": call},
        realtime_done("resp_r1"),
    )
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.usage.input_tokens, ended.usage.cache_read_input_tokens) == ("completed", 68, 64)
    assert ended.usage.output_tokens == 121
    assert (ended.usage.extra["prompt_audio"], ended.usage.extra["completion_audio"]) == (13, 91)
    assert talk.one(ToolCalled).arguments == '{"hand":1}'
    output = {"type": "function_call_output", "call_id": "call_9", "output": "waved"}
    talk.client({"type": "conversation.item.create", "item": output})
    talk.client({"type": "response.create"})
    assert talk.all(InterceptionDescribed)[1].correlating_tool_call_id == "call_9"
    assert talk.unknown == []


def test_a_turn_that_the_provider_began_by_itself_is_not_missed() -> None:
    talk = Talk("/v1/realtime?model=gpt-realtime")
    talk.client({"type": "input_audio_buffer.append", "audio": "AAAA"})
    talk.server(
        {"type": "response.created", "response": {"id": "resp_v"}},
        realtime_done("resp_v", "cancelled", status_details={"type": "cancelled", "reason": "turn_detected"}),
    )
    assert talk.one(InterceptionDescribed).request_model == "gpt-realtime"
    ended = talk.one(InterceptionEnded)
    assert (ended.outcome, ended.finish_reason, ended.usage.output_tokens) == ("completed", "cancelled:turn_detected", 121)


@pytest.mark.parametrize(
    ("session", "usage", "expected"),
    [
        (
            {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}},
            {
                "type": "tokens",
                "total_tokens": 26,
                "input_tokens": 17,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 17},
                "output_tokens": 9,
            },
            (17, 9, {"input_audio": 17}),
        ),
        (
            {"input_audio_transcription": {"model": "whisper-1"}},
            {"type": "duration", "seconds": 2.5},
            (0, 0, {"audio_milliseconds": 2500}),
        ),
    ],
)
def test_a_transcription_of_the_speaker_is_its_models_and_beside_the_work(
    session: dict[str, object], usage: dict[str, object], expected: tuple[int, int, dict[str, int]]
) -> None:
    talk = Talk("/v1/realtime?model=gpt-realtime")
    talk.client({"type": "session.update", "session": {"type": "realtime"} | session})
    talk.server({"type": "session.updated", "session": {"type": "realtime", "model": "gpt-realtime"} | session})
    talk.client({"type": "response.create"})
    transcription = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_1",
        "content_index": 0,
        "transcript": "Hello, how are you?",
        "usage": usage,
    }
    # In the middle of an answer, to which it does not belong.
    talk.server({"type": "response.created", "response": {"id": "resp_1"}}, transcription, realtime_done("resp_1"))
    asked, transcribed = talk.all(InterceptionDescribed)
    assert asked.request_model == "gpt-realtime"
    assert transcribed.request_model == (session.get("input_audio_transcription") or {"model": "gpt-4o-transcribe"})["model"]  # type: ignore[index]
    assert transcribed.metadata["utility"] == "transcription"
    first, second = talk.all(InterceptionEnded)
    assert (first.interception_id, first.response_id) == (transcribed.interception_id, "item_1")
    assert (first.outcome, first.usage_source, first.output_characters) == ("completed", "reported", 19)
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.extra) == expected
    assert (second.response_id, second.usage.output_tokens) == ("resp_1", 121)
    assert talk.unknown == []


def test_a_transcription_that_failed_or_has_no_figures_is_recorded_without_any() -> None:
    talk = Talk("/v1/realtime?intent=transcription")
    kind = "conversation.item.input_audio_transcription."
    talk.server({"type": f"{kind}failed", "item_id": "a", "error": {"type": "server_error", "message": "No."}})
    talk.server({"type": f"{kind}completed", "item_id": "b", "transcript": "Hi"})
    failed, completed = talk.all(InterceptionEnded)
    assert (failed.outcome, failed.error_message, failed.usage_source) == ("upstream_error", "No.", "none")
    assert (completed.outcome, completed.usage_source, completed.usage.input_tokens) == ("completed", "estimated", 0)
    assert talk.unknown == [{"missing:usage": 1}]


def test_a_realtime_error_ends_only_the_turn_it_refuses() -> None:
    talk = Talk("/v1/realtime?model=gpt-realtime")
    talk.client({"type": "response.create", "event_id": "event_7"})
    talk.server({"type": "error", "error": {"type": "invalid_request_error", "message": "Bad session.", "event_id": "event_1"}})
    assert talk.all(InterceptionEnded) == []
    talk.server({"type": "error", "error": {"type": "invalid_request_error", "message": "Bad turn.", "event_id": "event_7"}})
    assert talk.one(InterceptionEnded).error_message == "Bad turn."


def test_turns_outside_the_conversation_run_side_by_side() -> None:
    talk = Talk("/v1/realtime?model=gpt-realtime")
    for _ in range(2):
        talk.client({"type": "response.create", "response": {"conversation": "none", "input": []}})
    talk.server(
        {"type": "response.created", "response": {"id": "a"}},
        {"type": "response.created", "response": {"id": "b"}},
        {"type": "response.output_text.delta", "response_id": "b", "output_index": 0, "delta": "bbb"},
        realtime_done("b"),
        {"type": "response.done", "response": {"id": "a", "status": "failed", "status_details": {"error": {"message": "No."}}}},
    )
    ends = {end.response_id: (end.outcome, end.output_characters) for end in talk.all(InterceptionEnded)}
    assert ends == {"b": ("completed", 3), "a": ("upstream_error", 0)}
