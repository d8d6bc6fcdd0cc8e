"""Any bytes give events, facts or one WireError from aiproxyd.providers.cohere_embed, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_cohere_embed [SECONDS]
"""

from aiproxyd.providers import cohere_embed
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(cohere_embed.API, "embed")
