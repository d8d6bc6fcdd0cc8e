"""What a fuzz target of one API's parsers does; the target names the API and the folder of its transcripts."""

import random
import sys
from collections.abc import Callable, Iterable

from aiproxyd.model.events import ProviderErrorReported
from aiproxyd.providers.api import Api, RequestFacts
from tests.support.parsers import check_total, fuzz
from tests.support.transcripts import random_split, transcripts


def fuzz_api(
    api: Api, folder: str, *, framed: Callable[[bytes, random.Random], bytes] | None = None, payloads: Iterable[bytes] = ()
) -> None:
    """Read mutated transcripts as streams, documents, errors and requests, for the seconds that the command line gives (60).

    Args:
        api: Whose parsers.
        folder: Of its transcripts.
        framed: Puts a frame around a mutated payload, for framings whose checksum no mutation survives.
        payloads: What to mutate besides the transcripts, for `framed`.
    """
    cases = transcripts(folder)
    head = cases[0].head()

    def one_input(data: bytes) -> None:
        source = random.Random(len(data))
        chunks = random_split(data, source.randrange(1 << 30))
        for make in (api.stream_parser, api.document_parser):
            check_total(make, chunks, source.choice([64, 4096, 1 << 20]))
        if framed is not None:
            check_total(api.stream_parser, [framed(data, source)], 1 << 20)
        assert isinstance(api.read_error(source.choice([400, 429, 500, 529]), data), ProviderErrorReported)
        assert isinstance(api.read_request(data, head), RequestFacts)

    corpus = [body for case in cases for body in (case.response, case.request) if len(body) < 1 << 16] + list(payloads)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    try:
        import atheris  # type: ignore[import-not-found]
    except ImportError:
        print(f"{api.name}: {fuzz(one_input, corpus, seconds)} inputs, no fault")
    else:
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}"], one_input)
        atheris.Fuzz()
