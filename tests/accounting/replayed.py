"""Every transcript, sent and answered through the daemon, in each content coding in turn."""

import asyncio
import itertools
import ssl
from collections import defaultdict

import httpx

from tests.accounting.table import Row
from tests.support import replays
from tests.support.daemon import Daemon, eventually
from tests.support.transcripts import Transcript, transcripts

CODINGS = ("identity", "gzip", "br", "zstd", "deflate")
AT_ONCE = 8


def replay(daemon: Daemon) -> list[Row]:
    """Send every transcript through `daemon`, whose providers are `replays.PROVIDERS`; return a row a provider and API."""
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    cases = transcripts()

    async def run() -> None:
        numbered = iter(enumerate(cases))

        async def one_client() -> None:
            async with httpx.AsyncClient(proxy=daemon.proxy_url(), verify=trust, timeout=60) as client:
                for number, case in numbered:
                    host, path = replays.target(case)
                    await client.post(
                        f"https://{host}{path}",
                        content=case.request,
                        headers={
                            "content-type": case.request_content_type,
                            "accept-encoding": CODINGS[number % len(CODINGS)],
                            replays.HEADER: case.name,
                            "x-client-request-id": case.name,
                        },
                    )

        await asyncio.gather(*(one_client() for _ in range(AT_ONCE)))

    asyncio.run(run())
    names = {case.name for case in cases}

    def records() -> dict[str, list[dict]]:
        found = defaultdict(list)
        for record in daemon.stored():
            if record["ended_at"] and record["client_request_id"] in names:
                found[record["client_request_id"]].append(record)
        return found

    try:
        found = eventually(lambda: (all_ := records()) and len(all_) >= len(names) and all_, "a record of each transcript")
    except TimeoutError:
        found = records()

    def row_of(case: Transcript) -> str:
        return f"transcripts {case.provider} {case.api_folder}"

    rows = []
    for name, group in itertools.groupby(cases, key=row_of):
        row = Row(name)
        for case in group:
            row.compare(case.name, replays.true_usage(case), found.get(case.name, []))
        rows.append(row)
    return rows
