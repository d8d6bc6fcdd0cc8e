"""Where a key of the operator's may go."""

import pytest

from aiproxyd.model.endpoint import PASSTHROUGH, Endpoint


@pytest.mark.parametrize(
    ("endpoint", "takes_key"),
    [
        (Endpoint("/v1/messages", api="anthropic.messages"), True),
        (Endpoint("/v1/models", methods=("GET",)), True),
        (Endpoint("/v1/files", methods=("*",)), False),
        (Endpoint("/v1/realtime", methods=("*",), key=True), True),
        (Endpoint("/v1/credits", methods=("GET",), key=False), False),
        (PASSTHROUGH, False),
    ],
)
def test_a_key_goes_where_models_are_asked_and_not_where_an_account_keeps_things(endpoint, takes_key):
    assert endpoint.takes_key is takes_key
