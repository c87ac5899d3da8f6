"""Every error of the HTTP API as problem details (RFC 9457): stable `code`, status, and what to do about it."""

import logging
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
    Forbidden,
    InvalidRequest,
    JobNotFound,
    NotReplayable,
    OperatorError,
    OutwaitError,
    ProviderNotConfigured,
    StoreRefused,
    StoreUnavailable,
    StoreUnfit,
    Unauthenticated,
    WrongState,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

KINDS = ("one job", "many jobs")
"""What the body of an enqueue may be."""

_STATUSES: dict[type[OutwaitError], tuple[int, str]] = {
    InvalidRequest: (422, "The request is invalid"),
    WrongState: (409, "The job is in another state"),
    Conflict: (409, "Another request came under this id or key"),
    JobNotFound: (404, "No such job"),
    NotReplayable: (409, "Nothing can be delivered again"),
    Unauthenticated: (401, "An API key is needed"),
    Forbidden: (403, "The API key is not for this"),
    ProviderNotConfigured: (503, "The provider is not configured"),
    StoreUnavailable: (503, "The store does not answer"),
    OutwaitError: (500, "Something went wrong"),
}


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request; `field` leads to it, from the body, query, path or header."""

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


_PHRASES = {413: "Content Too Large"}
"""Where Python's words differ from version to version: codes are made of them."""


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


def told(error: OutwaitError) -> Problem:
    """What an error of ours means: the nearest entry of its family."""
    status, title = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    return Problem(_type(error.code), title, status, error.code, detail(error))


def detail(error: OutwaitError) -> str:
    """What a caller is told of an error. Of the store's nothing: they name hosts and settings, for the log alone."""
    match error:
        case StoreUnavailable():
            return "The store does not answer now: try again. The log of the web process says more."
        case StoreRefused() | StoreUnfit():
            return "The store has to be looked at by who runs it. The log of the web process says more."
        case _:
            return str(error)


def of(error: OutwaitError) -> Response:
    """The answer that an error of ours becomes."""
    found = told(error)
    return _answer(found, {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}.get(found.status))


def install(app: FastAPI) -> None:
    """Make every error of an app such an answer."""

    @app.exception_handler(OutwaitError)
    async def _ours(request: Request, error: OutwaitError) -> Response:
        if isinstance(error, OperatorError):
            named = getattr(request.state, "request_id", "")
            log.warning("request-failed", extra={"request": named, "code": error.code, "error": str(error)})
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
        named = getattr(request.state, "request_id", "")
        log.error("request-broken", extra={"request": named}, exc_info=error)
        headers = {"X-Request-Id": named} if named else None
        return problem(500, "bug", "A bug of Outwait's own", "The log of the web process has the details.", headers)


def _methods(app: FastAPI, path: str) -> str:
    """What the document of the API knows for a path; Starlette names the first of its routes only."""
    for template, item in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            methods = {method.upper() for method in item} | ({"HEAD"} if "get" in item else set())
            return ", ".join(sorted(methods))
    return ""


def _of_fields(found: Any) -> Response:
    """Wrong fields; what the path names and cannot be is not there."""
    if any(item["type"] == "json_invalid" for item in found):
        return problem(400, "malformed_json", "The body is no JSON", str(found[0].get("ctx", {}).get("error", "")))
    if all(item["loc"][0] == "path" for item in found):
        return problem(404, "not_found", "Not Found", "no such thing can be: " + found[0]["msg"])
    errors = tuple(FieldError(_field(item["loc"]), item["msg"].removeprefix("Value error, ")) for item in found[:100])
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors[:5])
    return problem(422, InvalidRequest.code, _STATUSES[InvalidRequest][1], detail, errors=errors)


def _field(parts: tuple[int | str, ...]) -> str:
    """`body.jobs[3].params`; the names of a body's kinds are ours and say nothing to others."""
    named = [part for n, part in enumerate(parts) if not (n == 1 and part in KINDS)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named)[1:]


def _type(code: str) -> str:
    return f"urn:outwait:problem:{code}"


def _answer(found: Problem, headers: Mapping[str, str] | None) -> Response:
    return Response(msgspec.json.encode(found), found.status, headers, MEDIA_TYPE)
