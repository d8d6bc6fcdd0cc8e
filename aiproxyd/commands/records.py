"""Where commands read records: the store itself, whether the daemon runs or not, or the admin server of a daemon elsewhere. Both give
the same shapes.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from aiproxyd.exceptions import AiproxydError

if TYPE_CHECKING:
    import httpx
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aiproxyd.storage.bulk import Record
    from aiproxyd.storage.selection import Selection
    from aiproxyd.storage.store import Store
    from aiproxyd.storage.usage_report import Dimension

_JsonObject = dict[str, Any]

PAGE = 1000
"""Interceptions that an export from a daemon elsewhere asks for at once."""

REMOTE_TIMEOUT_SECONDS = 60.0


class Records(Protocol):
    """What can be read."""

    def sessions(self, selection: "Selection", limit: int) -> list[_JsonObject]:
        """Return sessions, the last active first."""

    def session(self, id_: str, initiator: str) -> _JsonObject | None:
        """Return one session with all its threads, or None."""

    def usage(self, selection: "Selection", dimensions: "Sequence[Dimension]") -> _JsonObject:
        """Return figures, summed up, as the API's `usage`."""

    def interceptions(self, selection: "Selection", *, after_id: str = "", limit: int) -> list[_JsonObject]:
        """Return a page of interceptions, newest first."""

    def bulk(self, selection: "Selection") -> "Iterator[Sequence[Record | _JsonObject]]":
        """Yield every interception, newest first, some at a time, in the form that is there soonest and whose JSON is the same."""

    def interception(self, id_: str) -> _JsonObject | None:
        """Return one interception, or None."""

    def count(self, selection: "Selection") -> int:
        """Return how many interceptions there are."""

    def close(self) -> None:
        """Let go of what is open."""


@contextlib.contextmanager
def open_records(store_url: Callable[[], str], url: str, token: str) -> Iterator[Records]:
    """Yield the records of a daemon at `url`, or those of a store where `url` is empty.

    Args:
        store_url: Says where the store is; asked only when it is needed.
        url: Of an admin server; empty for none.
        token: For that server; empty for none.

    Raises:
        AiproxydError: They cannot be read.
    """
    records: Records = RemoteRecords(url, token) if url else LocalRecords(store_url())
    try:
        yield records
    finally:
        records.close()


@contextlib.contextmanager
def _found(after_id: str) -> Iterator[None]:
    try:
        yield
    except LookupError as exc:
        raise AiproxydError(f"after_id: interception {after_id!r} not found") from exc


class LocalRecords:
    """A store that is read directly."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._url = url
        self._opened: Store | None = None

    def close(self) -> None:
        """Close the store."""
        if self._opened is not None:
            self._runner.run(self._opened.close())
        self._runner.close()

    def _ask[T](self, work: "Callable[[Store], Awaitable[T]]") -> T:
        async def ask() -> T:
            from aiproxyd.storage.store import Store

            if self._opened is None:
                self._opened = await Store.open(self._url, create=False)
            return await work(self._opened)

        return self._runner.run(ask())

    def _read[T](self, query: "Callable[[AsyncConnection], Awaitable[T]]") -> T:
        return self._ask(lambda store: store.read(query))

    def sessions(self, selection: "Selection", limit: int) -> list[_JsonObject]:
        """Return sessions, the last active first."""
        from aiproxyd.storage import sessions

        return self._read(lambda c: sessions.list_sessions(c, selection, limit=limit))

    def session(self, id_: str, initiator: str) -> _JsonObject | None:
        """Return one session with all its threads, or None."""
        from aiproxyd.api.shapes import detail_of_session
        from aiproxyd.storage import sessions

        # Every thread: a terminal has no pages.
        found = self._read(lambda c: sessions.show_session(c, id_, initiator=initiator, limit=1 << 30))
        return None if found is None else detail_of_session(found)

    def usage(self, selection: "Selection", dimensions: "Sequence[Dimension]") -> _JsonObject:
        """Return figures, summed up."""
        from aiproxyd.storage import usage_report

        total, rows = self._read(lambda c: usage_report.report_of(c, selection, dimensions))
        rows = rows if dimensions else []
        return {"group_by": [str(dimension) for dimension in dimensions], "count": len(rows), "total": total, "usage": rows}

    def interceptions(self, selection: "Selection", *, after_id: str = "", limit: int) -> list[_JsonObject]:
        """Return a page of interceptions, newest first."""
        from aiproxyd.storage import listing

        with _found(after_id):
            return self._read(lambda c: listing.list_page(c, selection, after_id=after_id, limit=limit))

    def bulk(self, selection: "Selection") -> "Iterator[Sequence[Record | _JsonObject]]":
        """Yield every interception as a struct."""
        from aiproxyd.storage.selection import conditions_of
        from aiproxyd.storage.store import Store

        conditions = self._read(lambda c: conditions_of(c, selection))
        if (file := Store.file_of(self._url)) is not None:
            from aiproxyd.storage import bulk_sqlite

            yield from bulk_sqlite.read_pages(file, conditions)
        else:
            # Its driver is an extra.
            from aiproxyd.storage import bulk_postgres

            yield from bulk_postgres.read_pages(self._url, conditions)

    def interception(self, id_: str) -> _JsonObject | None:
        """Return one interception, or None."""
        return self._ask(lambda store: store.interception(id_))

    def count(self, selection: "Selection") -> int:
        """Return how many interceptions there are."""
        from aiproxyd.storage import listing

        return self._read(lambda c: listing.count_interceptions(c, selection))


class RemoteRecords:
    """The admin server of a daemon."""

    def __init__(self, url: str, token: str) -> None:
        self._client = remote_client(url, token)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def sessions(self, selection: "Selection", limit: int) -> list[_JsonObject]:
        """Return sessions, the last active first."""
        found: list[_JsonObject] = self._get("/sessions", _parameters(selection) | {"limit": limit})["sessions"]
        return found

    def session(self, id_: str, initiator: str) -> _JsonObject | None:
        """Return one session with all its threads, or None."""
        from urllib.parse import quote

        path = f"/sessions/{quote(id_, safe='')}"
        whole: _JsonObject | None = self._get(path, {"initiator": initiator, "limit": 200}, missing_is_none=True)
        page = whole
        while whole is not None and page is not None and len(page["threads"]) == 200:
            page = self._get(path, {"initiator": initiator, "limit": 200, "after_id": page["threads"][-1]["id"]})
            assert page is not None
            whole["threads"] += page["threads"]
            whole["page_ended_at"] = page["page_ended_at"] or whole["page_ended_at"]
        return whole

    def usage(self, selection: "Selection", dimensions: "Sequence[Dimension]") -> _JsonObject:
        """Return figures, summed up."""
        from aiproxyd.storage.usage_report import MAX_ROWS

        group_by = {"group_by": ",".join(dimensions)} if dimensions else {}
        found: _JsonObject = self._get("/usage", _parameters(selection) | group_by | {"limit": MAX_ROWS})
        return found

    def interceptions(self, selection: "Selection", *, after_id: str = "", limit: int) -> list[_JsonObject]:
        """Return a page of interceptions, newest first."""
        parameters = _parameters(selection) | {"limit": limit} | ({"after_id": after_id} if after_id else {})
        found: list[_JsonObject] = self._get("/interceptions", parameters)["results"]
        return found

    def bulk(self, selection: "Selection") -> "Iterator[Sequence[Record | _JsonObject]]":
        """Yield every interception; an answer is parsed whole."""
        after_id = ""
        while page := self.interceptions(selection, after_id=after_id, limit=PAGE):
            yield page
            if len(page) < PAGE:
                return
            after_id = page[-1]["id"]

    def interception(self, id_: str) -> _JsonObject | None:
        """Return one interception, or None."""
        found: _JsonObject | None = self._get(f"/interceptions/{id_}", {}, missing_is_none=True)
        return found

    def count(self, selection: "Selection") -> int:
        """Return how many interceptions there are."""
        return int(self._get("/interceptions", _parameters(selection) | {"limit": 1})["count"])

    def _get(self, path: str, parameters: dict[str, Any], *, missing_is_none: bool = False) -> Any:
        import httpx

        try:
            response = self._client.get(path, params=parameters)
        except httpx.HTTPError as exc:
            raise AiproxydError(f"{self._client.base_url} cannot be asked: {exc}") from exc
        if response.status_code == 404 and missing_is_none:
            return None
        return answer_of(response)


def remote_client(url: str, token: str) -> "httpx.Client":
    """Return a client for the API of the admin server at `url`.

    Raises:
        AiproxydError: `url` is none.
    """
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    if not url.startswith(("http://", "https://")):
        raise AiproxydError(f"{url!r} is not a URL such as http://127.0.0.1:8889")
    # Not through a proxy of the environment: that is the very proxy this asks about.
    return httpx.Client(
        base_url=url.rstrip("/") + "/api/v2/ai-gateway", headers=headers, timeout=REMOTE_TIMEOUT_SECONDS, trust_env=False
    )


def answer_of(response: "httpx.Response") -> Any:
    """Return what an answer holds.

    Raises:
        AiproxydError: It is no success, or not from our admin server.
    """
    try:
        document = response.json()
    except ValueError as exc:
        raise AiproxydError(f"{response.url} answers with status {response.status_code} and no JSON") from exc
    if response.is_success:
        return document
    sentences = [document.get("message", ""), document.get("detail", "")] if isinstance(document, dict) else []
    if isinstance(document, dict):
        sentences += [mistake["detail"] for mistake in document.get("validations", [])]
    said = " ".join(dict.fromkeys(sentence for sentence in sentences if sentence))
    raise AiproxydError(f"the daemon answers with status {response.status_code}: {said}")


def _parameters(selection: "Selection") -> dict[str, Any]:
    parameters = {}
    for name in ("initiator", "provider", "provider_name", "model", "client", "session_id", "outcome"):
        if value := getattr(selection, name):
            parameters[name] = value
    for name in ("started_after", "started_before"):
        if (time := getattr(selection, name)) is not None:
            parameters[name] = time.isoformat()
    return parameters
