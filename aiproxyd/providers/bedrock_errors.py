"""Errors of Amazon Bedrock: with a status, and inside a stream, where they are messages of their own.

Facts:
- A message of type `exception` names it in `:exception-type` and has a JSON payload with `message`; one of type `error` has
  `:error-code` and `:error-message` and no payload.

Source:
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.providers import errors
from aiproxyd.providers.decoding import decode
from aiproxyd.wire.aws_event_stream import AwsEventMessage

_ANY = msgspec.json.Decoder()


def stream_error(message: AwsEventMessage) -> ProviderErrorReported | None:
    """Return the error that `message` reports; None when it is an event. Total."""
    headers = message.headers
    match headers.get(":message-type"):
        case "exception":
            try:
                payload = decode(_ANY, message.payload)
            except MalformedBody:
                payload = None
            about = payload if isinstance(payload, dict) else {}
            return errors.reported_error({**about, "type": headers.get(":exception-type", "")})
        case "error":
            return errors.reported_error({"type": headers.get(":error-code", ""), "message": headers.get(":error-message", "")})
        case _:
            return None


def read_error(status_code: int, body: bytes) -> ProviderErrorReported:
    """As `Api.read_error`."""
    return errors.read_error(status_code, body, provider_type="bedrock")
