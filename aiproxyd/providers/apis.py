"""Every API that has a parser, by name. Endpoints of the provider facts name these."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from aiproxyd.providers import anthropic_messages, google_generate_content, openai_chat, openai_responses
from aiproxyd.providers.api import Api
from aiproxyd.providers.paths import naming_the_model

_ALL: Final = (
    anthropic_messages.API,
    google_generate_content.API,
    openai_chat.API,
    openai_responses.API,
)

# At Azure and Vertex the path names the model of a request whose API has it in the body.
APIS: Final[Mapping[str, Api]] = MappingProxyType(
    {api.name: msgspec.structs.replace(api, read_request=naming_the_model(api.read_request)) for api in _ALL}
)
