"""Every API that has a parser, by name. Endpoints of the provider facts name these."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aiproxyd.providers import anthropic_messages, openai_chat, openai_responses
from aiproxyd.providers.api import Api

APIS: Final[Mapping[str, Api]] = MappingProxyType(
    {api.name: api for api in (anthropic_messages.API, openai_chat.API, openai_responses.API)}
)
