"""The facts of a provider type, parsed from YAML text. Pure: who reads the package's files stands in `config`.

A facts file has: `type`; `hosts`, with `*` for any run of characters but a dot; `base_path`, where a base URL of the first host has one;
`endpoints`, in the order in which they are
tried, each with `route` and, unless they are the defaults, `methods` (POST), `api` (none: the request passes through), `websocket` (what reads the turns after an upgrade)
and `key` (whether an operator's key goes there, where `Endpoint.takes_key` would be wrong);
`source`, the pages the facts are from; `checked`, the day they were.
"""

import datetime as dt
from typing import Final

import msgspec
import yaml

from aiproxyd.model.endpoint import Endpoint
from aiproxyd.providers.apis import APIS
from aiproxyd.providers.conversation_apis import CONVERSATIONS


class ProviderFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a provider type before any configuration."""

    type: str
    source: tuple[str, ...]
    """Addresses of the pages that say so."""
    checked: dt.date
    """When they did."""
    hosts: tuple[str, ...] = ()
    """Host patterns; none for a type that only a `base_url` places."""
    base_path: str = ""
    """What stands before the paths of a client that was given a base URL, at the first of these hosts."""
    endpoints: tuple[Endpoint, ...] = ()


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "*"})


def parse_facts(text: str) -> ProviderFacts:
    """Return the facts that `text` holds.

    Raises:
        ValueError: It is no YAML, has a field too few or too many, or names an API or a method that does not exist. The text is
            part of the package, so this is a fault of it and not of its user.
    """
    try:
        facts = msgspec.convert(yaml.safe_load(text), ProviderFacts)
    except yaml.YAMLError as exc:
        raise ValueError(f"provider facts are no YAML: {exc}") from exc
    for endpoint in facts.endpoints:
        if endpoint.api and endpoint.api not in APIS:
            raise ValueError(f"{facts.type}: {endpoint.route} names the API {endpoint.api!r}, which has no parser")
        if endpoint.websocket and (endpoint.websocket not in CONVERSATIONS or endpoint.api):
            raise ValueError(
                f"{facts.type}: {endpoint.route} names the conversation {endpoint.websocket!r}, which nobody reads"
            )
        if not endpoint.route.startswith("/") or not _METHODS.issuperset(endpoint.methods):
            raise ValueError(f"{facts.type}: {' '.join(endpoint.methods)} {endpoint.route} is no endpoint")
    return facts
