"""Any bytes give events, facts or one WireError from aiproxyd.providers.cohere_chat, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_cohere_chat [SECONDS]
"""

from aiproxyd.providers import cohere_chat
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(cohere_chat.API, "chat")
