"""Every error of the HTTP API as problem details (RFC 9457): stable `code`, status, and what to do about it."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from worker.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    JobNotFound,
    NotReplayable,
    OutwaitError,
    ProviderNotConfigured,
    StoreUnavailable,
    Unauthenticated,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_STATUSES: dict[type[OutwaitError], tuple[int, str]] = {
    InvalidRequest: (422, "The request is invalid"),
    Conflict: (409, "Another request came under this id or key"),
    JobNotFound: (404, "No such job"),
    NotReplayable: (409, "Nothing can be delivered again"),
    Unauthenticated: (401, "An API key is needed"),
    Forbidden: (403, "The API key is not for this"),
    ProviderNotConfigured: (503, "The provider is not configured"),
    StoreUnavailable: (503, "The store does not answer"),
    OutwaitError: (500, "Something went wrong"),
}


def problem(
    status: int, code: str, title: str, detail: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """A problem as an answer."""
    body = {"type": f"urn:outwait:problem:{code}", "title": title, "status": status, "code": code}
    if detail:
        body["detail"] = detail
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def of(error: OutwaitError) -> JSONResponse:
    """The answer that an error of ours becomes: the nearest entry of its family."""
    status, title = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}.get(status)
    return problem(status, error.code, title, str(error), headers)


def install(app: FastAPI) -> None:
    """Make every error of an app such an answer."""

    @app.exception_handler(OutwaitError)
    async def _ours(_request: Request, error: OutwaitError) -> JSONResponse:
        return of(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        told = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        return problem(422, InvalidRequest.code, _STATUSES[InvalidRequest][1], told)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        code = "_".join(str(error.detail).lower().split())
        return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        log.error("request-broken", extra={"path": request.url.path}, exc_info=error)
        return problem(500, "bug", "A bug of Outwait's own", "The log of the web process has the details.")
