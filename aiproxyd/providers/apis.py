"""Every API that has a parser, by name. Endpoints of the provider facts name these."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from aiproxyd.providers import (
    anthropic_messages,
    bedrock_converse,
    bedrock_invoke_model,
    cohere_chat,
    cohere_embed,
    google_embed_content,
    google_generate_content,
    google_interactions,
    openai_audio,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_images,
    openai_responses,
)
from aiproxyd.providers.api import Api
from aiproxyd.providers.paths import naming_the_model

_ALL: Final = (
    anthropic_messages.API,
    bedrock_converse.API,
    bedrock_invoke_model.API,
    cohere_chat.API,
    cohere_embed.API,
    google_embed_content.API,
    google_generate_content.API,
    google_interactions.API,
    openai_audio.SPEECH,
    openai_audio.TRANSCRIPTIONS,
    openai_chat.API,
    openai_completions.API,
    openai_embeddings.API,
    openai_images.API,
    openai_responses.API,
)

# At Azure and Vertex the path names the model of a request whose API has it in the body.
APIS: Final[Mapping[str, Api]] = MappingProxyType(
    {api.name: msgspec.structs.replace(api, read_request=naming_the_model(api.read_request)) for api in _ALL}
)
