"""Any bytes give events, facts or one WireError from aiproxyd.providers.google_interactions, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_google_interactions [SECONDS]
"""

from aiproxyd.providers import google_interactions
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(google_interactions.API, "interactions")
