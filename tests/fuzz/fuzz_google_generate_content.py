"""Any bytes give events, facts or one WireError from aiproxyd.providers.google_generate_content, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_google_generate_content [SECONDS]
"""

from aiproxyd.providers import google_generate_content
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(google_generate_content.API, "generate_content")
