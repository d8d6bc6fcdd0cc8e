"""The table of clients that a configuration makes: its own rules, then the known ones."""

from collections.abc import Iterable

from aiproxyd.clients import KNOWN, RULES, ClientRule, ClientTable
from aiproxyd.config.schema import ClientConfig


def client_table(clients: Iterable[ClientConfig]) -> ClientTable:
    """Return the table in which the rules of `clients` come before the known ones."""
    own = [
        ClientRule(
            client.name,
            user_agents=() if client.user_agent_prefix is None else (client.user_agent_prefix.lower(),),
            headers=() if client.header is None else ((client.header.lower(), client.header_value or ""),),
            session_headers=() if client.session_header is None else (client.session_header.lower(),),
            version_header="" if client.version_header is None else client.version_header.lower(),
        )
        for client in clients
    ]
    return ClientTable([*own, *RULES]) if own else KNOWN
