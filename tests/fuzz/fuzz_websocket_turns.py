"""Any messages of both sides of a WebSocket give turns that each end exactly once, whatever the order; the tap raises nothing.

    python -m tests.fuzz.fuzz_websocket_turns [SECONDS]

With atheris installed it runs under its coverage guidance; without, it mutates conversations at random for so many seconds
(default 60).
"""

import logging
import sys

import structlog

from aiproxyd.mitm.decrypted import AbortedBy, TapSettings
from aiproxyd.mitm.tap import Tap
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import InterceptionEnded, InterceptionStarted
from tests.support.observing import KeptJournal, SteppedReporter, connection_to
from tests.support.parsers import fuzz
from tests.support.websocket_frames import frame

PATHS = {"/v1/responses": "openai.responses", "/v1/realtime": "openai.realtime"}
CONNECTION = connection_to(
    "api.openai.com", "openai", tuple(Endpoint(path, methods=("GET",), websocket=name) for path, name in PATHS.items())
)

# Lines of a conversation: `>` from the client, `<` from the provider.
CORPUS = [
    b"""> {"type":"response.create","model":"m","input":"Hi","stream_id":"a"}
< {"type":"response.created","response":{"id":"r1"},"stream_id":"a"}
< {"type":"response.output_text.delta","output_index":0,"delta":"x","stream_id":"a"}
> {"type":"response.steer","previous_response_id":"r1","input":"More"}
< {"type":"response.completed","response":{"id":"r1","usage":{"input_tokens":1,"output_tokens":2}},"stream_id":"a"}
< {"type":"response.created","response":{"id":"r2","previous_response_id":"r1"},"stream_id":"a"}
< {"type":"error","status":400,"error":{"message":"no"}}
> {"type":"response.create","generate":false}""",
    b"""> {"type":"conversation.item.create","item":{"type":"message","role":"user","content":[]}}
> {"type":"response.create","event_id":"e"}
< {"type":"response.created","response":{"id":"a"}}
< {"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","name":"f"},"response_id":"a"}
< {"type":"error","error":{"event_id":"e"}}
< {"type":"response.done","response":{"id":"a","status":"cancelled","usage":{"input_tokens":1}}}""",
]


def test_one_input(data: bytes) -> None:
    """Tell both conversations of `data`, and count how turns begin and end."""
    for path in PATHS:
        journal = KeptJournal()
        tap = Tap(SteppedReporter(journal), TapSettings()).open(CONNECTION, RequestHead("GET", path, Headers()))
        tap.response_head(ResponseHead(101, Headers([("upgrade", "websocket")])))
        for line in data.split(b"\n"):
            if line.startswith(b">"):
                tap.upgraded_request_data(frame(line[1:]))
            else:
                tap.upgraded_response_data(frame(line[1:]))
        assert tap.is_upgraded, "a fault of ours"
        tap.upgraded_end(AbortedBy.CLIENT)
        seen = journal.observations
        started = [each.interception_id for each in seen if isinstance(each, InterceptionStarted)]
        ended = [each.interception_id for each in seen if isinstance(each, InterceptionEnded)]
        assert sorted(started) == sorted(ended)


def main() -> None:
    """Fuzz until a fault, or until the time is over."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    try:
        import atheris
    except ImportError:
        print(f"websocket turns: {fuzz(test_one_input, CORPUS, seconds)} inputs, no fault")
    else:
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}"], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
