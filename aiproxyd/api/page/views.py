"""The routes of the page. Everything a client sent is text: the template engine escapes it, and the policy of the page lets no
script run that is not a file of ours.
"""

import datetime as dt
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlencode

import jinja2
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

import aiproxyd
from aiproxyd.api import rest
from aiproxyd.api.access import LOCAL, SESSION_SECONDS, Caller, PageSessions, Role, caller_of_token
from aiproxyd.api.gate import COOKIE
from aiproxyd.api.page import overview, setup, words
from aiproxyd.api.page.forms import read_form
from aiproxyd.api.page.setup import Shell
from aiproxyd.api.parameters import KEYS, Conditions, caller_of, is_storable, selection_of
from aiproxyd.api.problems import WRONG_SESSION_QUERY, Problem
from aiproxyd.api.search import joined_terms, parse_search
from aiproxyd.api.shapes import cost_of_records, usage_of_records
from aiproxyd.api.state import AdminState
from aiproxyd.storage import listing, sessions

SESSIONS_A_PAGE = 50
THREADS_A_PAGE = 100

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

_STATIC_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

Word = Annotated[str, Query(max_length=2000)]


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aiproxyd.api.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS)
    environment.globals.update(
        between=words.between, percent=words.percent, usage_of=usage_of_records, cost_of=cost_of_records, query=urlencode
    )
    return environment


def create_page(state: AdminState, page_sessions: PageSessions) -> APIRouter:
    """Return the routes of the page that shows `state`."""
    router = APIRouter()
    environment = _templates()
    static = {
        entry.name: entry.read_bytes()
        for entry in resources.files("aiproxyd.api.page").joinpath("static").iterdir()
        if entry.name.rpartition(".")[2] in _STATIC_TYPES
    }

    def render(request: Request, name: str, facts: Mapping[str, Any], status: int = 200) -> HTMLResponse:
        caller: Caller | None = request.state.caller
        text = environment.get_template(name).render(
            facts,
            caller=caller,
            is_local=caller == LOCAL,
            is_admin=caller is not None and caller.role.includes(Role.ADMIN),
            sees_content=caller is not None and rest.sees_content(caller),
            form_token=page_sessions.form_token(request.state.cookie),
            version=aiproxyd.__version__,
            path=request.url.path,
        )
        # Without a referrer of its own a form's `Origin` would be `null`, and older browsers say nothing else of where it is from.
        return HTMLResponse(text, status, {"content-security-policy": _POLICY, "referrer-policy": "same-origin"})

    def problem(request: Request, found: Problem) -> HTMLResponse:
        return render(request, "problem.html", {"problem": found}, found.status)

    @router.get("/")
    async def show_overview(request: Request, days: int = 7, reloaded: Word = "") -> Response:
        days = days if days in overview.PERIODS else 7
        today = dt.datetime.now(dt.UTC).date()
        found = await state.store.read(lambda c: overview.read_overview(c, today, days))
        facts = {
            "days": days,
            "periods": overview.PERIODS,
            "total": found.total,
            "charts": found.charts,
            "chart_width": overview.CHART_WIDTH,
            "chart_height": overview.CHART_HEIGHT,
            "boards": found.boards,
            "providers": state.providers(),
            "conditions": state.readiness(),
            "reloaded": reloaded,
            "joined_terms": joined_terms,
        }
        return render(request, "overview.html", facts)

    @router.post("/reload")
    async def reload(request: Request) -> Response:
        await read_form(request, page_sessions)
        _need_admin(caller_of(request))
        mistake = await state.reload()
        return RedirectResponse("/?" + urlencode({"reloaded": mistake or "The configuration is in use."}), 303)

    @router.get("/sessions")
    async def list_sessions(request: Request, q: Word = "", after: Word = "", after_user: Word = "") -> Response:
        caller = caller_of(request)
        facts: dict[str, Any] = {"q": q, "found": [], "mistakes": [], "next": "", "values": {}}
        for what in ("models", "clients", "providers"):
            facts["values"][what] = await state.store.read(lambda c, what=what: listing.values_of(c, what, limit=200))  # type: ignore[misc]  # bound at once
        facts["terms"] = parse_search(q, KEYS).terms
        try:
            selection = await selection_of(Conditions(q, {}), caller=caller, store=state.store, message=WRONG_SESSION_QUERY)
            place = None
            if after and is_storable(after) and is_storable(after_user):
                place = await state.store.read(lambda c: sessions.place_of(c, selection, after, after_user))
            found = await state.store.read(
                lambda c: sessions.list_sessions(c, selection, limit=SESSIONS_A_PAGE + 1, after=place)
            )
        except Problem as wrong:
            return render(request, "sessions.html", facts | {"mistakes": wrong.mistakes}, wrong.status)
        if len(found) > SESSIONS_A_PAGE:
            found = found[:SESSIONS_A_PAGE]
            last = found[-1]
            facts["next"] = urlencode({"q": q, "after": last["id"], "after_user": last["initiator"]["id"]})
        if rest.sees_content(caller):
            rest.content_read(caller, "sessions", records=len(found), query=q, via="page")
        return render(request, "sessions.html", facts | {"found": found, "is_first": place is None})

    @router.get("/session")
    async def show_session(
        request: Request,
        id: Word = "",  # noqa: A002  (the page's address)
        user: Word = "",
        after: Word = "",
        before: Word = "",
    ) -> Response:
        caller = caller_of(request)
        found = None
        if id and all(is_storable(word) for word in (id, user, after, before)):
            try:
                found = await state.store.read(
                    lambda c: sessions.show_session(
                        c, id, initiator=user, after_id=after, before_id="" if after else before, limit=THREADS_A_PAGE
                    )
                )
            except LookupError:
                found = None
        if found is None:
            return problem(request, Problem(404, "Session not found."))
        if rest.sees_content(caller):
            rest.content_read(caller, "session", session_id=found.summary["id"], threads=len(found.threads), via="page")
        address = {"id": found.summary["id"], "user": found.summary["initiator"]["id"]}
        facts = {
            "session": found.summary,
            "threads": found.threads,
            "earlier": urlencode(address | {"before": found.threads[0][0]}) if found.has_earlier and found.threads else "",
            "later": urlencode(address | {"after": found.threads[-1][0]}) if found.has_later and found.threads else "",
        }
        return render(request, "session.html", facts)

    @router.get("/live")
    async def show_live(request: Request) -> Response:
        return render(request, "live.html", {"feed": f"{rest.PREFIXES[0]}/live"})

    @router.get("/users")
    async def show_users(request: Request) -> Response:
        return render(request, "users.html", {"users": await rest.known_users(state), "made": None, "wrong": None, "done": ""})

    @router.post("/users/add")
    async def add_user(request: Request) -> Response:
        fields = await read_form(request, page_sessions)
        caller = caller_of(request)
        _need_admin(caller)
        name = fields.get("name", "").strip()
        groups = [group.strip() for group in fields.get("groups", "").split(",") if group.strip()]
        facts: dict[str, Any] = {"made": None, "wrong": None, "done": ""}
        try:
            token = await rest.make_user(state, caller, name, groups)
            facts["made"] = {"name": name, "token": token, "lines": _lines(request, name, token)}
        except Problem as wrong:
            facts["wrong"] = wrong
        status = facts["wrong"].status if facts["wrong"] else 200
        return render(request, "users.html", facts | {"users": await rest.known_users(state)}, status)

    @router.post("/users/revoke")
    async def revoke_user(request: Request) -> Response:
        fields = await read_form(request, page_sessions)
        caller = caller_of(request)
        _need_admin(caller)
        name = fields.get("name", "")
        facts: dict[str, Any] = {"made": None, "wrong": None, "done": ""}
        try:
            await rest.unmake_user(state, caller, name)
            facts["done"] = f"The token of {name} is revoked."
        except Problem as wrong:
            facts["wrong"] = wrong
        status = facts["wrong"].status if facts["wrong"] else 200
        return render(request, "users.html", facts | {"users": await rest.known_users(state)}, status)

    @router.get("/setup")
    async def show_setup(request: Request, tool: Word = "", shell: Word = "", user: Word = "") -> Response:
        chosen, syntax = setup.tool_of(tool), setup.shell_of(shell)
        name = user or "NAME"
        facts = {
            "tools": setup.TOOLS,
            "shells": list(Shell),
            "tool": chosen,
            "shell": syntax,
            "asks_for_users": state.asks_for_users,
            "certificate": setup.certificate_lines(_admin_url(request), chosen, syntax),
            "exports": _exports(request, chosen, syntax, name, "TOKEN"),
        }
        return render(request, "setup.html", facts)

    @router.get("/login")
    async def show_login(request: Request, next: Word = "/") -> Response:  # noqa: A002  (the page's address)
        if request.state.caller is not None:
            return RedirectResponse(_own_path(next), 303)
        return render(request, "login.html", {"next": _own_path(next), "wrong": False})

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        fields = await read_form(request, page_sessions)
        caller = caller_of_token(fields.get("token", "").strip(), state.tokens)
        there = _own_path(fields.get("next", "/"))
        if caller is None:
            rest.log.warning("login refused", client=request.client.host if request.client else "")
            return render(request, "login.html", {"next": there, "wrong": True}, 401)
        rest.log.info("logged in", who=caller.name, role=str(caller.role))
        response = RedirectResponse(there, 303)
        # Not `secure`: the server speaks plain HTTP; whoever puts TLS before it adds that there.
        response.set_cookie(COOKIE, page_sessions.cookie(caller), SESSION_SECONDS, httponly=True, samesite="strict")
        return response

    @router.post("/logout")
    async def log_out(request: Request) -> Response:
        await read_form(request, page_sessions)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    @router.get("/static/{name}")
    async def show_static(name: str) -> Response:
        if name not in static:
            raise Problem(404, "Not Found.")
        headers = {"cache-control": "no-cache", "content-security-policy": "default-src 'none'; style-src 'self'"}
        return Response(static[name], media_type=_STATIC_TYPES[name.rpartition(".")[2]], headers=headers)

    def _exports(request: Request, tool: setup.Tool, shell: Shell, name: str, token: str) -> list[str]:
        user, token = (name, token) if state.asks_for_users else ("", "")
        url = setup.proxy_url(_proxy_authority(request, state), user, token)
        return setup.export_lines(setup.variables(url, tool), shell)

    def _lines(request: Request, name: str, token: str) -> dict[str, list[str]]:
        tool = setup.TOOLS[0]
        return {
            str(shell): [
                *setup.certificate_lines(_admin_url(request), tool, shell),
                *_exports(request, tool, shell, name, token),
            ]
            for shell in Shell
        }

    return router


def _need_admin(caller: Caller) -> None:
    if not caller.role.includes(Role.ADMIN):
        raise Problem(403, "Only admin tokens may do this.")


def _own_path(path: str) -> str:
    """Return `path` if it is one of ours, else that of the overview: a link must not lead elsewhere after a login."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if is_own else "/"


def _host_of(request: Request) -> str:
    """Return the host by which the browser names this server; only letters that a host name has."""
    host = request.headers.get("host", "")
    name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
    return name if name and all(letter.isalnum() or letter in ".-:[]" for letter in name) else "127.0.0.1"


def _admin_url(request: Request) -> str:
    port = request.headers.get("host", "").removeprefix(_host_of(request))
    return f"http://{_host_of(request)}{port if port[1:].isdigit() else ''}"


def _proxy_authority(request: Request, state: AdminState) -> str:
    """Return the proxy as a client names it: on every address, it is where this server is."""
    host, _, port = state.proxy_listen[0].rpartition(":")
    return f"{_host_of(request) if host in {'0.0.0.0', '[::]', ''} else host}:{port}"  # noqa: S104  (compared, not bound)
