"""Any bytes give events, facts or one WireError from aiproxyd.providers.openai_responses, never any other error, and bounded memory.

    python -m tests.fuzz.fuzz_openai_responses [SECONDS]

With atheris installed it runs under its coverage guidance; without, it mutates the transcripts at random for so many seconds
(default 60).
"""

import random
import sys

from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.providers import openai_responses
from aiproxyd.providers.api import RequestFacts
from tests.support.parsers import check_total, fuzz
from tests.support.transcripts import random_split, transcripts

API = openai_responses.API
CASES = transcripts("responses")
HEAD = CASES[0].head()


def test_one_input(data: bytes) -> None:
    """Read `data` as a stream, a document, an error and a request."""
    source = random.Random(len(data))
    chunks = random_split(data, source.randrange(1 << 30))
    for make in (API.stream_parser, API.document_parser):
        check_total(make, chunks, source.choice([64, 4096, 1 << 20]))
    assert isinstance(API.read_error(source.choice([400, 429, 500, 529]), data), ProviderErrorReported)
    assert isinstance(API.read_request(data, HEAD), RequestFacts)


def main() -> None:
    """Fuzz until a fault, or until the time is over."""
    corpus = [body for case in CASES for body in (case.response, case.request) if len(body) < 1 << 16]
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    try:
        import atheris
    except ImportError:
        print(f"{API.name}: {fuzz(test_one_input, corpus, seconds)} inputs, no fault")
    else:
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}"], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
