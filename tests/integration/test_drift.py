"""What a provider sends that its documentation does not know, or no longer sends, is counted and shown with a sample."""

import json

from aiproxyd.drift import PREFIX
from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider
from tests.support.replays import HEADER
from tests.unit.test_drift import LACKING

HOST = "api.anthropic.com"


def test_a_field_that_went_missing_is_counted_and_shown(own_daemon, provider: FakeProvider, model: str) -> None:
    daemon: Daemon = own_daemon()
    transcript, fields = next((name, fields) for name, fields in LACKING.items() if name.startswith("anthropic/messages/"))
    lacks = [PREFIX + field for field in fields]
    with decrypted(daemon, HOST) as wire:
        answer = wire.request("POST", "/v1/messages", HOST, message(model), headers=[(HEADER, transcript)])
        assert answer is not None
        assert answer.status == 200
    for word in lacks:
        daemon.wait_for_metric(1, "coder_ai_gateway_unknown_events_total", provider="anthropic", event=word)
    shown = eventually(lambda: json.loads(daemon.command("providers", "drift", "--output", "json").stdout), "a sample")
    assert set(lacks) <= {sample["kind"] for sample in shown}
    assert all(sample["sample"] for sample in shown)
