"""The only place that knows HTTP status codes: every error becomes OpenAI's shape, on every path.

{"error": {"message": str, "type": str, "param": str | null, "code": str | null}}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from intern import errors

log = logging.getLogger(__name__)

# error -> (status, OpenAI's type). The nearest class in the error's ancestry decides.
STATUS: Mapping[type[errors.InternError], tuple[int, str]] = {
    errors.InternError: (500, "server_error"),
    errors.InvalidInput: (400, "invalid_request_error"),
    errors.NotAuthenticated: (401, "authentication_error"),
    errors.NotAllowed: (403, "permission_error"),
    errors.NotFound: (404, "invalid_request_error"),
    errors.Conflict: (409, "invalid_request_error"),
    errors.Overloaded: (429, "rate_limit_error"),
    errors.DeadlineExceeded: (504, "timeout_error"),
    errors.OutputInvalid: (422, "output_invalid_error"),
    errors.EngineFailure: (502, "engine_error"),
    errors.EngineUnavailable: (503, "engine_error"),
    errors.ModelUnavailable: (503, "engine_error"),
    errors.AdapterRefused: (422, "invalid_request_error"),
    errors.TrainingUnavailable: (409, "server_error"),
    errors.TrainingFailed: (500, "server_error"),
    errors.WorkspaceBusy: (409, "server_error"),
    errors.StoreFailure: (503, "server_error"),
}

CLIENT_LEFT = 499  # nginx's number for it; nobody sees it but the log


def status_of(error: errors.InternError) -> tuple[int, str]:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def body(error: Exception) -> dict[str, Any]:
    """The error's JSON body. An error that is not ours says nothing of its inside."""
    if not isinstance(error, errors.InternError):
        return shape(
            "Something went wrong inside the server. The log says more under this request's id.", "server_error"
        )
    code: str | None = error.code
    param = getattr(error, "param", None)
    if isinstance(error, errors.NotFound) and error.what == "model":
        code, param = "model_not_found", "model"
    return shape(error.message, status_of(error)[1], param=param, code=code)


def shape(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response(error: Exception) -> Response:
    if not isinstance(error, errors.InternError):
        return JSONResponse(body(error), 500)
    headers = {}
    if isinstance(error, errors.Overloaded):
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if isinstance(error, errors.NotAuthenticated):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body(error), status_of(error)[0], headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers on an app."""

    @app.exception_handler(errors.InternError)
    async def _intern(request: Request, error: errors.InternError) -> Response:
        if status_of(error)[0] >= 500:
            log.error("%s: %s", error.code, error.message)
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        message, param = explain(error.errors(), error.body)
        return JSONResponse(shape(message, "invalid_request_error", param=param, code="invalid_input"), 400)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        # Not request.url: that one is made with the Host header.
        path = str(request.scope["path"])[:200]
        messages = {404: f"There is nothing at {path}.", 405: f"{request.method} is not possible at {path}."}
        message = messages.get(error.status_code, str(error.detail))
        content = shape(message, "invalid_request_error", code=f"http_{error.status_code}")
        return JSONResponse(content, error.status_code, headers=error.headers)

    @app.exception_handler(SQLAlchemyError)
    async def _store(request: Request, error: SQLAlchemyError) -> Response:
        log.error("the database failed", exc_info=error)
        return response(errors.StoreFailure("The database cannot be read or written now. Try again later."))

    @app.exception_handler(ClientDisconnect)
    async def _left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)


def explain(problems: Sequence[Mapping[str, Any]], body: Any = None) -> tuple[str, str | None]:
    """(message, parameter) of what validation found: of the problem that lies deepest in `body`, since the others
    are the forms that were not meant."""
    if isinstance(body, bytes):
        return "Send the body as JSON, with the header 'Content-Type: application/json'.", None
    found = [(_place(problem["loc"], body, problem["type"] == "missing"), problem) for problem in problems]
    place, problem = max(found, key=lambda pair: len(pair[0]))
    param = ".".join(place) or None
    if param is None:
        return f"The body is not as expected: {_reason(problem)}.", None
    if problem["type"] == "missing":
        return f"The parameter '{param}' is missing.", param
    if problem["type"] == "extra_forbidden":
        return f"The parameter '{param}' is unknown.", param
    return f"The parameter '{param}' is not as expected: {_reason(problem)}.", param


def _reason(problem: Mapping[str, Any]) -> str:
    return str(problem["msg"]).removeprefix("Value error, ").rstrip(".")


def _place(loc: Sequence[Any], body: Any, missing: bool) -> list[str]:
    """Where in the request a problem lies: its location without the names of the types that were tried on the way."""
    if not loc or loc[0] != "body":
        return [str(part) for part in loc[1:]]
    place = []
    for number, part in enumerate(loc[1:], 2):
        if (isinstance(body, Mapping) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            body = body[part]
        elif not (missing and number == len(loc)):
            continue
        place.append(str(part))
    return place
