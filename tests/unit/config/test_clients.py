"""An operator's own clients come before the known ones."""

import pytest
from pydantic import ValidationError

from aiproxyd.clients import KNOWN, ClientFacts
from aiproxyd.config.clients import client_table
from aiproxyd.config.schema import ClientConfig
from aiproxyd.model.head import Headers
from aiproxyd.providers.api import RequestFacts

OURS = (
    ClientConfig(name="Our Agent", user_agent_prefix="Our-Agent/", session_header="X-Our-Session"),
    ClientConfig(name="Wrapped Claude", header="X-Wrapped", header_value="yes", version_header="X-Wrapped-Version"),
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user-agent": "our-agent/1.2 (linux)"}, ClientFacts("Our Agent", "1.2")),
        ({"user-agent": "claude-cli/2.0", "x-wrapped": "yes", "x-wrapped-version": "7"}, ClientFacts("Wrapped Claude", "7")),
        ({"user-agent": "claude-cli/2.0", "x-wrapped": "no"}, ClientFacts("Claude Code", "2.0")),
        ({"user-agent": "nobody/1"}, ClientFacts("Unknown", "")),
    ],
)
def test_own_rules_come_first(fields: dict[str, str], expected: ClientFacts) -> None:
    assert client_table(OURS).detect(Headers(fields.items())) == expected


def test_an_own_client_has_its_session_where_the_configuration_says() -> None:
    headers = Headers([("x-our-session", " s1 ")])
    assert client_table(OURS).session_id("Our Agent", headers, RequestFacts()) == "s1"
    assert client_table(OURS).session_id("Wrapped Claude", headers, RequestFacts()) == ""


def test_without_own_rules_it_is_the_known_table() -> None:
    assert client_table(()) is KNOWN


@pytest.mark.parametrize(
    "fields", [{}, {"header_value": "x"}, {"user_agent_prefix": "x", "header_value": "y"}, {"header": "no: good"}]
)
def test_a_rule_without_a_usable_sign_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ClientConfig(name="x", **fields)
