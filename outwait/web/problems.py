"""Errors of the HTTP API as problem details (RFC 9457): a stable `code`, a status, and what to do."""

import logging
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from outwait.worker.model.errors import (
    Conflict,
    ExternalIdTaken,
    Forbidden,
    InvalidRequest,
    JobNotFound,
    NotReplayable,
    OperatorError,
    OutwaitError,
    ProviderNotConfigured,
    QuotaExceeded,
    StorageExceeded,
    StoreRefused,
    StoreUnavailable,
    StoreUnfit,
    Unauthenticated,
    WrongState,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

KINDS = ("one job", "many jobs")
"""The two forms of an enqueue's body."""

_STATUSES: dict[type[OutwaitError], tuple[int, str]] = {
    InvalidRequest: (422, "The request is invalid"),
    WrongState: (409, "The job is in another state"),
    Conflict: (409, "A different request has this id or key"),
    ExternalIdTaken: (409, "Another job has this external id"),
    JobNotFound: (404, "There is no such job"),
    NotReplayable: (409, "No delivery can be repeated"),
    QuotaExceeded: (429, "The tenant has reached a quota"),
    StorageExceeded: (413, "The tenant's storage is full"),
    Unauthenticated: (401, "A valid API key is needed"),
    Forbidden: (403, "The API key does not allow this"),
    ProviderNotConfigured: (503, "The provider is not configured"),
    StoreUnavailable: (503, "The store cannot be used now"),
    StoreUnfit: (503, "The store would lose jobs"),
    OutwaitError: (500, "Something went wrong"),
}


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request. `field` is its path, from `body`, `query`, `path` or `header` on."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong (RFC 9457). `code` is stable: branch on it, never on the texts."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


BUG_TITLE = "A bug in Outwait"

_PHRASES = {413: "Content Too Large"}
"""Phrases that differ between versions of Python. Codes are made from phrases, so they must be stable."""


def problem(
    status: int,
    code: str,
    title: str,
    detail: str = "",
    headers: Mapping[str, str] | None = None,
    errors: tuple[FieldError, ...] = (),
) -> Response:
    """A problem as an answer."""
    return _answer(Problem(_type(code), title, status, code, detail, errors), headers)


def describe(error: OutwaitError) -> Problem:
    """The problem for an error: the status and title of its class or its nearest base class."""
    status, title = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    return Problem(_type(error.code), title, status, error.code, detail(error))


def detail(error: OutwaitError) -> str:
    """The text for the caller. The store's own errors name hosts and settings, so they appear only in the log."""
    match error:
        case StoreUnavailable():
            return f"The store {error.outage.summary}. Try again later. The log of the web process has the details."
        case StoreRefused() | StoreUnfit():
            return "The operator must check the store. The log of the web process has the details."
        case _:
            return str(error)


def of(error: OutwaitError) -> Response:
    """The answer for an error."""
    described = describe(error)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}.get(described.status)
    if isinstance(error, QuotaExceeded) and error.retry_after is not None:
        headers = {"Retry-After": f"{math.ceil(error.retry_after)}"}
    return _answer(described, headers)


def install(app: FastAPI) -> None:
    """Turn every error of an app into problem details."""

    @app.exception_handler(OutwaitError)
    async def _ours(request: Request, error: OutwaitError) -> Response:
        if isinstance(error, OperatorError):
            request_id = getattr(request.state, "request_id", "")
            level = (
                logging.DEBUG if isinstance(error, StoreUnavailable) else logging.WARNING
            )  # the store logs an outage
            log.log(level, "request-failed", extra={"request": request_id, "code": error.code, "error": str(error)})
        return of(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        return _of_fields(error.errors())

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        title = _PHRASES.get(error.status_code) or HTTPStatus(error.status_code).phrase
        detail = "" if error.detail == title else str(error.detail)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = _methods(app, request.url.path) or headers.get("Allow", "")
        return problem(error.status_code, "_".join(title.lower().split()), title, detail, headers)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        request_id = getattr(request.state, "request_id", "")
        log.error("request-broken", extra={"request": request_id}, exc_info=error)
        headers = {"X-Request-Id": request_id} if request_id else None
        return problem(500, "bug", BUG_TITLE, "The log of the web process has the details.", headers)


def _methods(app: FastAPI, path: str) -> str:
    """The methods of a path, from the OpenAPI document. Starlette names only those of the first matching route."""
    for template, operations in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            methods = {method.upper() for method in operations} | ({"HEAD"} if "get" in operations else set())
            return ", ".join(sorted(methods))
    return ""


def _of_fields(invalid: Any) -> Response:
    """The answer for invalid fields. An invalid name in the path means that the thing does not exist: 404."""
    if any(field["type"] == "json_invalid" for field in invalid):
        cause = str(invalid[0].get("ctx", {}).get("error", ""))
        return problem(400, "malformed_json", "The body is not valid JSON", cause)
    if all(field["loc"][0] == "path" for field in invalid):
        return problem(404, "not_found", "Not Found", invalid[0]["msg"].removeprefix("Value error, "))
    errors = tuple(
        FieldError(_field(field["loc"]), field["msg"].removeprefix("Value error, ")) for field in invalid[:100]
    )
    detail = "; ".join(f"{error.field}: {error.message}" for error in errors[:5])
    return problem(422, InvalidRequest.code, _STATUSES[InvalidRequest][1], detail, errors=errors)


def _field(parts: tuple[int | str, ...]) -> str:
    """The path of a field, `body.jobs[3].params`. The name of the body's form (see KINDS) is left out."""
    path = [part for n, part in enumerate(parts) if not (n == 1 and part in KINDS)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _type(code: str) -> str:
    return f"urn:outwait:problem:{code}"


def _answer(described: Problem, headers: Mapping[str, str] | None) -> Response:
    return Response(msgspec.json.encode(described), described.status, headers, MEDIA_TYPE)
