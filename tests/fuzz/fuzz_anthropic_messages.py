"""Any bytes give events, facts or one WireError from aiproxyd.providers.anthropic_messages, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_anthropic_messages [SECONDS]
"""

from aiproxyd.providers import anthropic_messages
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(anthropic_messages.API, "messages")
