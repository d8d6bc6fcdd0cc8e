"""Signs requests to Bedrock with AWS credentials (Signature Version 4), by botocore, the extra `bedrock`. Not which key is used.

The signature covers the method, the target, `host`, `content-type`, every `x-amz*` field and the SHA-256 of the body. So the body has to
be whole before the head can leave: it is kept up to `retry_body_max_bytes`, and a larger one is refused with 413. What the head
says besides may still change, hop-by-hop fields and `user-agent` above all.

botocore takes a third of a second to import, in which nothing else would move. So a worker that gets AWS credentials calls `load` before it uses them,
in a thread of its own; a daemon without AWS credentials neither needs nor loads it.
"""

import functools
import importlib.util
import re
import time
from typing import Any, NamedTuple

from aiproxyd.credentials import HeadEdit, replacing
from aiproxyd.exceptions import AiproxydError
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import RequestHead

MISSING = "AWS credentials need botocore, which is not installed: pip install 'aiproxyd[bedrock]'"

_REPLACED = frozenset({"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"})
_REGION = re.compile(
    r"(?:.*\.)?(bedrock-runtime|bedrock-runtime-fips|bedrock-mantle)\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)\Z"
)


def is_available() -> bool:
    """Return whether botocore is installed."""
    return importlib.util.find_spec("botocore") is not None


def load() -> None:
    """Import what `sign` needs. From any thread.

    Raises:
        AiproxydError: botocore is missing.
    """
    _botocore()


def is_loaded() -> bool:
    """Return whether `sign` needs nothing more."""
    return _botocore.cache_info().currsize > 0


class _Botocore(NamedTuple):
    auth: Any
    request: Any
    credentials: Any
    timestamp: str


@functools.cache
def _botocore() -> _Botocore:
    try:
        from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError as exc:
        raise AiproxydError(MISSING) from exc
    return _Botocore(SigV4Auth, AWSRequest, Credentials, SIGV4_TIMESTAMP)


def region_of(host: str) -> str:
    """Return the AWS region that a Bedrock host names; empty for any other host."""
    match = _REGION.match(host.lower())
    return match[2] if match is not None else ""


def sign(key: UpstreamKey, head: RequestHead, body: bytes, *, host: str, at: float) -> HeadEdit:
    """Return the edit that replaces the credential of a request by a signature with `key`.

    Args:
        key: AWS credentials.
        head: As the client sent it, with the fields that will be there when it leaves.
        body: All of it, as it will be sent: content-coded, without transfer coding.
        host: The `Host` that the provider gets, with a port when it is not the scheme's.
        at: Unix time in seconds; AWS refuses more than five minutes of difference.

    Raises:
        AiproxydError: botocore is missing, or nobody says which region the host is in.
    """
    name = host.partition(":")[0]
    region = region_of(name) or key.region
    if not region:
        raise AiproxydError(f"the AWS region of {name} is not known: set the key's region")
    botocore = _botocore()
    headers = {"host": host}
    for field, value in head.headers:
        if field == "content-type" or (field.startswith("x-amz") and field not in _REPLACED):
            headers[field] = f"{headers[field]},{value}" if field in headers else value
    target = f"{head.path}?{head.query}" if head.query else head.path
    request = botocore.request(method=head.method, url=f"https://{host}{target}", headers=headers, data=body)
    service = "bedrock-mantle" if name.startswith("bedrock-mantle.") else "bedrock"
    auth = botocore.auth(botocore.credentials(key.access_key_id, key.secret, key.session_token or None), service, region)
    # What `add_auth` does, with our time instead of its clock and without its debug log of the whole request.
    stamp = time.strftime(botocore.timestamp, time.gmtime(at))
    request.context["timestamp"] = stamp
    request.headers["X-Amz-Date"] = stamp
    added = [("x-amz-date", stamp)]
    if key.session_token:
        request.headers["X-Amz-Security-Token"] = key.session_token
        added.append(("x-amz-security-token", key.session_token))
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    signed_headers = auth.signed_headers(auth.headers_to_sign(request))
    value = f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={signed_headers}, Signature={signature}"
    return replacing((*added, ("authorization", value)), removes_query_key=False)
