"""Any bytes give events, facts or one WireError from aiproxyd.providers.bedrock_invoke_model, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_bedrock_invoke_model [SECONDS]
"""

import base64
import json
import random

from aiproxyd.providers import bedrock_invoke_model
from aiproxyd.wire.aws_event_stream import AwsEventStreamDecoder
from tests.support.fuzzing import fuzz_api
from tests.support.transcripts import transcripts
from tests.support.wire_formats import aws_event


def framed(payload: bytes, source: random.Random) -> bytes:
    """Return a chunk with this event of a model."""
    return aws_event("chunk", {"bytes": base64.b64encode(payload).decode()})


def payloads() -> list[bytes]:
    """Return the models' events of the transcripts."""
    found: list[bytes] = []
    for case in transcripts("invoke_model"):
        if case.case.startswith("streamed_"):
            messages = AwsEventStreamDecoder(1 << 24).feed(case.response)
            found += [base64.b64decode(json.loads(message.payload)["bytes"]) for message in messages]
    return found


if __name__ == "__main__":
    fuzz_api(bedrock_invoke_model.API, "invoke_model", framed=framed, payloads=payloads())
