"""Reads what a form of the page sends. Small bodies only; nothing is uploaded."""

from urllib.parse import parse_qsl

from fastapi import Request

from aiproxyd.api.access import PageSessions
from aiproxyd.api.problems import Problem

MAX_FORM_BYTES = 64 << 10


async def read_form(request: Request, sessions: PageSessions) -> dict[str, str]:
    """Return the fields of a form that our own page sent.

    Raises:
        Problem: It is none, too large, or somebody else's.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise Problem(415, "A form is expected.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            raise Problem(413, f"A form has at most {MAX_FORM_BYTES} bytes.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Problem(400, "The form cannot be read.") from None
    fields = dict(pairs)
    if not sessions.is_form_token(fields.pop("form_token", ""), request.state.cookie):
        raise Problem(403, "The form is too old; go back, reload the page and try again.")
    return fields
