"""Any bytes give events, facts or one WireError from aiproxyd.providers.openai_responses, never any other error, and bounded memory.

python -m tests.fuzz.fuzz_openai_responses [SECONDS]
"""

from aiproxyd.providers import openai_responses
from tests.support.fuzzing import fuzz_api

if __name__ == "__main__":
    fuzz_api(openai_responses.API, "responses")
