"""Any bytes give events, facts or one WireError from aiproxyd.providers.bedrock_converse, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_bedrock_converse [SECONDS]
"""

import random

from aiproxyd.providers import bedrock_converse
from aiproxyd.wire.aws_event_stream import AwsEventStreamDecoder
from tests.support.fuzzing import fuzz_api
from tests.support.transcripts import transcripts
from tests.support.wire_formats import aws_message

KINDS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")


def framed(payload: bytes, source: random.Random) -> bytes:
    """Return an event with this payload."""
    return aws_message(payload, {":message-type": "event", ":event-type": source.choice(KINDS)})


def payloads() -> list[bytes]:
    """Return the payloads of the transcripts' events."""
    found: list[bytes] = []
    for case in transcripts("converse"):
        if case.case.startswith("streamed_"):
            found += [message.payload for message in AwsEventStreamDecoder(1 << 24).feed(case.response)]
    return found


if __name__ == "__main__":
    fuzz_api(bedrock_converse.API, "converse", framed=framed, payloads=payloads())
