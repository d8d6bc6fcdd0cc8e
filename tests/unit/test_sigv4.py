import datetime as dt
import subprocess
import sys

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from aiproxyd import sigv4
from aiproxyd.exceptions import AiproxydError
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers, RequestHead

AT = 1_790_000_000.0
HOST = "bedrock-runtime.eu-west-1.amazonaws.com"


@pytest.fixture
def _frozen(monkeypatch):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: dt.datetime.fromtimestamp(AT, dt.UTC))


@pytest.mark.usefixtures("_frozen")
@pytest.mark.parametrize("session_token", ["", "a-session-token"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"),
        ("POST", "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke-with-response-stream"),
        ("GET", "/async-invoke?maxResults=2&nextToken=a%2Fb&empty="),
    ],
)
@pytest.mark.parametrize("body", [b"", b'{"a": "\xc3\xa4"}', bytes(70_000)])
def test_a_signature_is_that_of_botocore(method, target, body, session_token):
    sent = [
        ("Content-Type", "application/json"),
        ("User-Agent", "Boto3/1.40"),
        ("X-Amzn-Bedrock-Trace", "  ENABLED  twice "),
        ("X-Amz-Date", "20200101T000000Z"),
        ("X-Amz-Security-Token", "that-of-the-client"),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=aiproxyd/x"),
    ]
    key = UpstreamKey("the-secret", access_key_id="AKIDEXAMPLE", session_token=session_token)
    edit = sigv4.sign(key, RequestHead(method, target, Headers(sent)), body, host=HOST, at=AT)

    expected = AWSRequest(
        method,
        f"https://{HOST}{target}",
        {"content-type": "application/json", "x-amzn-bedrock-trace": "  ENABLED  twice "},
        data=body,
    )
    botocore.auth.SigV4Auth(Credentials("AKIDEXAMPLE", "the-secret", session_token or None), "bedrock", "eu-west-1").add_auth(
        expected
    )
    added = dict(edit.add)
    assert added["authorization"] == expected.headers["Authorization"]
    assert added["x-amz-date"] == expected.headers["X-Amz-Date"]
    assert added.get("x-amz-security-token") == expected.headers.get("X-Amz-Security-Token")
    assert edit.remove >= {"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
    assert not edit.removes_query_key, "it is part of what is signed"


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (HOST, "eu-west-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("bedrock-mantle.us-east-2.api.aws", "us-east-2"),
        ("vpce-0123-abc.bedrock-runtime.us-east-1.vpce.amazonaws.com", "us-east-1"),
        ("bedrock.example.com", ""),
        ("bedrock-runtime.eu-west-1.amazonaws.com.example.com", ""),
    ],
)
def test_the_host_names_the_region(host, region):
    assert sigv4.region_of(host) == region


def test_a_host_without_a_region_needs_one_in_the_configuration():
    head = RequestHead("POST", "/model/m/converse", Headers())
    key = UpstreamKey("s", access_key_id="AKIDEXAMPLE")
    with pytest.raises(AiproxydError, match="region"):
        sigv4.sign(key, head, b"", host="bedrock.example.com", at=AT)
    key = UpstreamKey("s", access_key_id="AKIDEXAMPLE", region="us-west-2")
    edit = sigv4.sign(key, head, b"", host="bedrock.example.com:8443", at=AT)
    assert "/20260921/us-west-2/bedrock/aws4_request" in dict(edit.add)["authorization"]


def test_the_mantle_endpoint_is_a_service_of_its_own():
    head = RequestHead("POST", "/anthropic/v1/messages", Headers())
    edit = sigv4.sign(UpstreamKey("s", access_key_id="AK"), head, b"", host="bedrock-mantle.us-east-1.api.aws", at=AT)
    assert "/us-east-1/bedrock-mantle/aws4_request" in dict(edit.add)["authorization"]


def test_what_signing_needs_is_imported_when_it_is_asked_for_and_not_by_a_request():
    program = """
import sys
from aiproxyd import sigv4
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers, RequestHead
assert sigv4.is_available()
assert not sigv4.is_loaded()
assert "botocore.auth" not in sys.modules
sigv4.load()
assert sigv4.is_loaded()
before = set(sys.modules)
head = RequestHead("POST", "/model/m/converse", Headers())
sigv4.sign(UpstreamKey("s", access_key_id="AK"), head, b"{}", host="bedrock-runtime.eu-west-1.amazonaws.com", at=1.0)
assert set(sys.modules) == before, set(sys.modules) - before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
