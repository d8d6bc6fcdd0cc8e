"""Every conversation that is read, by the name that endpoints of the provider facts give it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiproxyd.providers.conversations import Conversation
from aiproxyd.providers.openai_realtime import RealtimeConversation
from aiproxyd.providers.openai_responses_turns import ResponsesConversation

CONVERSATIONS: Final[Mapping[str, Callable[[], Conversation]]] = MappingProxyType(
    {"openai.responses": ResponsesConversation, "openai.realtime": RealtimeConversation}
)
