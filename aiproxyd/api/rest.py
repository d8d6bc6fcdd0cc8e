"""The routes below `/api/v2/ai-gateway` (and its alias `/api/v2/aibridge`): records for programs.

Every answer that holds content is logged with who got it and what, before it leaves.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from aiproxyd.api.access import Caller, Role
from aiproxyd.api.content import figures_of_detail, figures_of_interception, figures_of_session
from aiproxyd.api.counts import Counts
from aiproxyd.api.live import LiveFeed, Onlooker
from aiproxyd.api.parameters import (
    Conditions,
    Limit,
    Offset,
    caller_of,
    conditions,
    cursor,
    dimensions,
    is_storable,
    selection_of,
)
from aiproxyd.api.problems import (
    WRONG_INTERCEPTION_QUERY,
    WRONG_SESSION_QUERY,
    WRONG_USAGE_QUERY,
    Problem,
    json_response,
)
from aiproxyd.api.schemas import (
    ConfiguredProvider,
    Interception,
    Interceptions,
    KnownUser,
    MadeUser,
    NewUser,
    ProblemAnswer,
    SessionDetail,
    Sessions,
    Usage,
)
from aiproxyd.api.search import Mistake
from aiproxyd.api.shapes import detail_of_session
from aiproxyd.api.state import AdminState
from aiproxyd.exceptions import StorageError
from aiproxyd.model.principal import id_of_name
from aiproxyd.storage import listing, session_places, sessions, usage_report
from aiproxyd.storage.usage_report import Dimension

PREFIXES = ("/api/v2/ai-gateway", "/api/v2/aibridge")

KEEP_ALIVE_SECONDS = 15.0
"""How often a live stream says that it is still there."""

log = structlog.get_logger("aiproxyd.api")

Asked = Annotated[Caller, Depends(caller_of)]
Given = Annotated[Conditions, Depends(conditions)]
Id = Annotated[str, Path(min_length=1, max_length=512)]
CursorText = Annotated[str, Query(max_length=512)]

_WRONG: dict[int | str, dict[str, Any]] = {
    400: {"model": ProblemAnswer, "description": "A parameter makes no sense."},
    401: {"model": ProblemAnswer, "description": "A token is needed."},
    403: {"model": ProblemAnswer, "description": "The token's role does not allow it."},
    503: {"model": ProblemAnswer, "description": "The records cannot be read."},
}
_MISSING: dict[int | str, dict[str, Any]] = {**_WRONG, 404: {"model": ProblemAnswer, "description": "There is none."}}


def content_read(caller: Caller, what: str, **facts: object) -> None:
    """Log that somebody gets content, with the facts that are not empty."""
    told = {name: fact for name, fact in facts.items() if fact not in ("", {})}
    log.info("content read", who=caller.name, role=str(caller.role), what=what, **told)


def sees_content(caller: Caller) -> bool:
    """Return whether a caller may see more than figures."""
    return caller.role.includes(Role.AUDITOR)


def needs(role: Role) -> Callable[[Request], None]:
    """Return a dependency that refuses callers without `role`."""

    def check(request: Request) -> None:
        if not caller_of(request).role.includes(role):
            raise Problem(403, f"Only {role} tokens may do this.")

    return check


def create_router(state: AdminState) -> APIRouter:
    """Return the routes that show `state`."""
    router = APIRouter()
    counts = Counts()

    @router.get("/interceptions", tags=["records"], responses={200: {"model": Interceptions}, **_WRONG})
    async def list_interceptions(
        caller: Asked, given: Given, limit: Limit = listing.DEFAULT_LIMIT, offset: Offset = 0, after_id: CursorText = ""
    ) -> Response:
        """Interceptions, newest first. `after_id` is the last id of the page before."""
        selection = await selection_of(given, caller=caller, store=state.store, message=WRONG_INTERCEPTION_QUERY)
        after_id = cursor("after_id", after_id, {"offset": offset})
        try:
            results = await state.store.read(
                lambda c: listing.list_page(c, selection, limit=limit, offset=offset, after_id=after_id)
            )
        except LookupError:
            raise _unknown_cursor("after_id", "interception", after_id) from None
        count = await counts.count(
            ("interceptions", selection), lambda: state.store.read(lambda c: listing.count_interceptions(c, selection))
        )
        if sees_content(caller):
            content_read(caller, "interceptions", records=len(results), query=given.q, parameters=given.parameters)
        else:
            results = [figures_of_interception(record) for record in results]
        return json_response({"count": count, "results": results})

    @router.get("/interceptions/{interception_id}", tags=["records"], responses={200: {"model": Interception}, **_MISSING})
    async def show_interception(caller: Asked, interception_id: Id) -> Response:
        """One interception."""
        found = await state.store.interception(interception_id) if is_storable(interception_id) else None
        if found is None:
            raise Problem(404, "Interception not found.")
        if sees_content(caller):
            content_read(caller, "interception", interception_id=interception_id)
        else:
            found = figures_of_interception(found)
        return json_response(found)

    @router.get("/sessions", tags=["records"], responses={200: {"model": Sessions}, **_WRONG})
    async def list_sessions(
        caller: Asked,
        given: Given,
        *,
        limit: Limit = sessions.DEFAULT_LIMIT,
        offset: Offset = 0,
        after_session_id: CursorText = "",
        after_initiator: Annotated[
            str, Query(max_length=512, description="Id of the last session's user, where several share its id.")
        ] = "",
    ) -> Response:
        """Sessions, the last active first. `after_session_id` is the last id of the page before."""
        selection = await selection_of(given, caller=caller, store=state.store, message=WRONG_SESSION_QUERY)
        after_session_id = cursor("after_session_id", after_session_id, {"offset": offset})
        after_initiator = cursor("after_initiator", after_initiator, {})
        after = None
        if after_session_id:
            after = await state.store.read(lambda c: sessions.place_of(c, selection, after_session_id, after_initiator))
            if after is None:
                raise _unknown_cursor("after_session_id", "session", after_session_id)
        found = await state.store.read(lambda c: sessions.list_sessions(c, selection, limit=limit, offset=offset, after=after))
        count = await counts.count(
            ("sessions", selection), lambda: state.store.read(lambda c: session_places.count_sessions(c, selection))
        )
        if sees_content(caller):
            content_read(caller, "sessions", records=len(found), query=given.q, parameters=given.parameters)
        else:
            found = [figures_of_session(summary) for summary in found]
        return json_response({"count": count, "sessions": found})

    @router.get("/sessions/{session_id:path}", tags=["records"], responses={200: {"model": SessionDetail}, **_MISSING})
    async def show_session(
        caller: Asked,
        *,
        session_id: Annotated[str, Path(min_length=1, max_length=512, description="The session's id, or an interception's.")],
        limit: Annotated[int, Query(ge=1, le=sessions.MAX_THREADS)] = sessions.DEFAULT_THREADS,
        after_id: CursorText = "",
        before_id: CursorText = "",
        initiator: Annotated[str, Query(max_length=512, description="Id of the user, where several share the id.")] = "",
    ) -> Response:
        """A session with its threads, oldest first. `after_id` and `before_id` are ids of threads."""
        after_id = cursor("after_id", after_id, {"before_id": before_id})
        before_id = cursor("before_id", before_id, {})
        initiator = cursor("initiator", initiator, {})
        try:
            found = (
                await state.store.read(
                    lambda c: sessions.show_session(
                        c, session_id, initiator=initiator, after_id=after_id, before_id=before_id, limit=limit
                    )
                )
                if is_storable(session_id)
                else None
            )
        except LookupError:
            name = "after_id" if after_id else "before_id"
            raise _unknown_cursor(name, "thread", after_id or before_id) from None
        if found is None:
            raise Problem(404, "Session not found.")
        detail = detail_of_session(found)
        if sees_content(caller):
            content_read(caller, "session", session_id=detail["id"], threads=len(detail["threads"]))
        else:
            detail = figures_of_detail(detail)
        return json_response(detail)

    def add_values(what: str) -> None:
        @router.get(f"/{what}", name=f"list_{what}", tags=["values"], responses={200: {"model": list[str]}, **_WRONG})
        async def list_values(
            prefix: Annotated[str, Query(max_length=512)] = "",
            limit: Limit = listing.DEFAULT_LIMIT,
            offset: Offset = 0,
        ) -> Response:
            if not is_storable(prefix):
                return json_response([])
            return json_response(
                await state.store.read(lambda c: listing.values_of(c, what, prefix=prefix, limit=limit, offset=offset))
            )

        list_values.__doc__ = f"The {what} that records have, in order."

    for what in ("models", "clients", "providers"):
        add_values(what)

    @router.get("/providers/status", tags=["values"], responses={200: {"model": list[ConfiguredProvider]}, **_WRONG})
    async def list_provider_states() -> Response:
        """The providers of the configuration, whether each is in use, and how its keys stand. No key is shown."""
        return json_response([{**fact._asdict(), "hosts": list(fact.hosts)} for fact in state.providers()])

    @router.get("/usage", tags=["figures"], responses={200: {"model": Usage}, **_WRONG})
    async def show_usage(
        caller: Asked,
        given: Given,
        group_by: Annotated[list[Dimension], Depends(dimensions)],
        limit: Annotated[int, Query(ge=1, le=usage_report.MAX_ROWS)] = 1000,
    ) -> Response:
        """Requests, tokens and cost, summed up."""
        selection = await selection_of(given, caller=caller, store=state.store, message=WRONG_USAGE_QUERY)
        total, rows = await state.store.read(lambda c: usage_report.report_of(c, selection, group_by, limit=limit))
        rows = rows if group_by else []
        return json_response({"group_by": group_by, "count": len(rows), "total": total, "usage": rows})

    @router.get("/users", tags=["users"], responses={200: {"model": list[KnownUser]}, **_WRONG})
    async def list_users() -> Response:
        """The users of the store and of the configuration, and those who were seen."""
        return json_response(await known_users(state))

    @router.post(
        "/users",
        tags=["users"],
        status_code=201,
        dependencies=[Depends(needs(Role.ADMIN))],
        responses={201: {"model": MadeUser}, **_WRONG, 409: {"model": ProblemAnswer, "description": "There is one."}},
    )
    async def add_user(caller: Asked, user: NewUser) -> Response:
        """Make a user and their token, which is shown this once."""
        token = await make_user(state, caller, user.name, user.groups)
        return json_response({"name": user.name, "token": token}, 201)

    @router.delete(
        "/users/{name:path}",
        tags=["users"],
        status_code=204,
        dependencies=[Depends(needs(Role.ADMIN))],
        responses=_MISSING,
    )
    async def revoke_user(caller: Asked, name: Id) -> Response:
        """Make a user's token worthless. Their records stay."""
        await unmake_user(state, caller, name)
        return Response(status_code=204)

    @router.get(
        "/live",
        tags=["live"],
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}, **_WRONG},
    )
    async def live(request: Request, caller: Asked) -> Response:
        """What happens, as server-sent events: `started`, `described`, `tool`, `thought`, `ended`, `refused`."""
        number = request.headers.get("last-event-id", "")
        onlooker = state.live.join(after=int(number) if number.isascii() and number.isdigit() and len(number) < 16 else 0)
        if onlooker is None:
            raise Problem(503, "Too many look on at once.")
        if sees_content(caller):
            content_read(caller, "live")
        stream = event_stream(state.live, onlooker, with_content=sees_content(caller))
        return StreamingResponse(stream, media_type="text/event-stream")

    return router


async def event_stream(feed: LiveFeed, onlooker: Onlooker, *, with_content: bool) -> AsyncIterator[bytes]:
    """Yield what an onlooker sees, as server-sent events, until the feed closes or nobody reads."""
    try:
        yield b"retry: 2000\n\n"
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    events = await onlooker.next()
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if onlooker.dropped:
                yield b"event: dropped\ndata: " + msgspec.json.encode({"count": onlooker.dropped}) + b"\n\n"
                onlooker.dropped = 0
            if not events:
                return
            for event in events:
                # JSON has no line break outside of escapes, so that no text can end the event.
                data = msgspec.json.encode(event.shown(with_content=with_content))
                yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.number, event.kind.encode(), data)
    finally:
        feed.leave(onlooker)


async def known_users(state: AdminState) -> list[dict[str, Any]]:
    """Return every user, by name."""
    configured = {id_of_name(name): (name, groups) for name, groups in state.configured_users}
    users = [
        user | {"status": "configured", "groups": list(configured[user["id"]][1])} if user["id"] in configured else user
        for user in await state.store.read(listing.users_seen)
    ]
    seen = {user["id"] for user in users}
    users += [
        {
            "id": id_,
            "username": name,
            "name": name,
            "groups": list(groups),
            "status": "configured",
            "created_at": None,
            "revoked_at": None,
        }
        for id_, (name, groups) in configured.items()
        if id_ not in seen
    ]
    return sorted(users, key=lambda user: (user["name"], user["id"]))


async def make_user(state: AdminState, caller: Caller, name: str, groups: Sequence[str]) -> str:
    """Make a user and return their token.

    Raises:
        Problem: The name is taken or cannot be one.
    """
    if not name.isprintable() or not all(group.isprintable() and 0 < len(group) <= 120 for group in groups):
        raise Problem(400, "A name has no control characters and no line breaks.")
    if any(name == taken for taken, _ in state.configured_users):
        raise Problem(409, f"The configuration has a user {name!r} already.")
    try:
        token = await state.store.add_user(name, groups)
    except StorageError as exc:
        raise Problem(409, "The user was not made.", str(exc)) from exc
    log.info("user made", who=caller.name, user=name)
    state.users_changed()
    return token


async def unmake_user(state: AdminState, caller: Caller, name: str) -> None:
    """Make a user's token worthless.

    Raises:
        Problem: There is none.
    """
    if not is_storable(name) or not await state.store.revoke_user(name):
        raise Problem(404, "No user of this name has a token of the store.")
    log.info("user revoked", who=caller.name, user=name)
    state.users_changed()


def _unknown_cursor(parameter: str, what: str, id_: str) -> Problem:
    sentence = f'{parameter}: {what} "{id_}" not found'
    return Problem(400, sentence, mistakes=[Mistake(parameter, sentence)])
