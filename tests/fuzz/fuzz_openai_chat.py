"""Any bytes give events, facts or one WireError from aiproxyd.providers.openai_chat, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_openai_chat [SECONDS]
"""

from aiproxyd.providers import openai_chat
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(openai_chat.API, "chat_completions")
