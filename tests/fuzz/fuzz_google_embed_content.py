"""Any bytes give events, facts or one WireError from aiproxyd.providers.google_embed_content, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_google_embed_content [SECONDS]
"""

from aiproxyd.providers import google_embed_content
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(google_embed_content.API, "embed_content")
