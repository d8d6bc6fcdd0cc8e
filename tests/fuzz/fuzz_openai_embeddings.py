"""Any bytes give events, facts or one WireError from aiproxyd.providers.openai_embeddings, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_openai_embeddings [SECONDS]
"""

from aiproxyd.providers import openai_embeddings
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(openai_embeddings.API, "embeddings")
