"""Adds the pages to an application. For people errors become pages; the API's errors stay problem details."""

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from outwait.web.pages import dead, held, job, jobs, login, overview, providers
from outwait.web.pages.rendering import HEADERS, assets, render
from outwait.web.pages.session import Tries, Viewer, current_viewer
from outwait.web.services import services
from outwait.worker.model.errors import OperatorError, OutwaitError, Unauthenticated

FOR_PROGRAMS = ("/v1/", "/webhooks/", "/metrics", "/livez", "/readyz")
"""Paths for programs, which have no pages."""

YEAR = 365 * 86400

Fallback = Callable[[Request, Any], Any]
"""The coroutine function that turns an error into problem details."""

router = APIRouter(include_in_schema=False)


@router.get("/assets/{name}")
async def asset(name: str) -> Response:
    """A file that pages load. Its URL changes with its content, so it may be cached for ever."""
    file = assets().get(name)
    if file is None:
        raise HTTPException(404)
    headers = {"Cache-Control": f"public, max-age={YEAR}, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(file.body, headers=headers, media_type=file.media_type)


def install(app: FastAPI) -> None:
    """Add the pages. Call `problems.install` before: its answers become pages for people."""
    app.state.tries = Tries()
    for part in (router, login.router, overview.router, jobs.router, job.router, dead.router, held.router):
        app.include_router(part)
    app.include_router(providers.router)
    for kind in (OutwaitError, RequestValidationError, StarletteHTTPException, Exception):
        app.add_exception_handler(kind, _as_page(app.exception_handlers[kind]))


def _as_page(fallback: Fallback) -> Callable[[Request, Any], Awaitable[Response]]:
    async def handler(request: Request, error: Any) -> Response:
        if not _for_people(request):
            problem: Response = await fallback(request, error)
            return problem
        if isinstance(error, Unauthenticated):
            return _to_login(request)
        return _page(request, await fallback(request, error), await _viewer(request, error))

    return handler


def _for_people(request: Request) -> bool:
    return not request.url.path.startswith(FOR_PROGRAMS) and "text/html" in request.headers.get("accept", "")


def _to_login(request: Request) -> Response:
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    next_path = path if request.method == "GET" else "/"
    return RedirectResponse("/login" if next_path == "/" else f"/login?next={quote(next_path)}", 303, HEADERS)


async def _viewer(request: Request, error: Exception) -> Viewer | None:
    """The person who sees the error page, for its navigation; None if the store does not answer."""
    with contextlib.suppress(OutwaitError):
        return None if isinstance(error, OperatorError) else await current_viewer(request, services(request))
    return None


def _page(request: Request, problem: Response, viewer: Viewer | None) -> Response:
    fields, status = json.loads(bytes(problem.body)), problem.status_code
    answer = render(
        request, "error.html", status=status, viewer=viewer, title=fields["title"], detail=fields.get("detail", "")
    )
    for name in ("retry-after", "allow"):
        if name in problem.headers:
            answer.headers[name] = problem.headers[name]
    return answer
