"""What a request that cannot be answered gets: a sentence, what is behind it, and which parameters are wrong. Coder's shape."""

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from aiproxyd.api.search import Mistake
from aiproxyd.exceptions import StorageError

WRONG_PARAMETERS = "Query parameters have invalid values."
WRONG_SESSION_QUERY = "Invalid session search query."
WRONG_INTERCEPTION_QUERY = "Invalid interception search query."
WRONG_USAGE_QUERY = "Invalid usage search query."
WRONG_LIMIT = "Invalid pagination limit value."


class Problem(Exception):
    """An answer that is no success. Only routes raise it; the application turns it into a response."""

    def __init__(self, status: int, message: str, detail: str = "", mistakes: Iterable[Mistake] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.detail = detail
        self.mistakes = list(mistakes)


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `document` as an answer."""
    return Response(msgspec.json.encode(document), status, headers, media_type="application/json")


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return `problem` as an answer."""
    document: dict[str, Any] = {"message": problem.message, "detail": problem.detail}
    if problem.mistakes:
        document["validations"] = [{"field": field, "detail": detail} for field, detail in problem.mistakes]
    return json_response(document, problem.status, headers)


def install_problems(app: FastAPI) -> None:
    """Give every failure of `app` the one shape."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, problem: Problem) -> Response:
        return problem_response(problem)

    @app.exception_handler(StorageError)
    async def _storage(_request: Request, error: StorageError) -> Response:
        return problem_response(Problem(503, "The records cannot be read.", str(error)))

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> Response:
        mistakes = [Mistake(str(one["loc"][-1]), one["msg"]) for one in error.errors()]
        if [field for field, _ in mistakes] == ["limit"]:
            bounds = error.errors()[0].get("ctx", {})
            bound = (
                f" {bounds['ge']} or more" if "ge" in bounds else f" {bounds['le']} or less" if "le" in bounds else " a number"
            )
            return problem_response(Problem(400, WRONG_LIMIT, f"Pagination limit must be{bound}.", mistakes))
        return problem_response(Problem(400, WRONG_PARAMETERS, "", mistakes))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # The router names the methods of the first route that fits; the path may have others beside it.
            headers["Allow"] = ", ".join(_methods(app.routes, request.scope))
        return problem_response(Problem(error.status_code, f"{error.detail}."), headers)


def _methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    return [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
