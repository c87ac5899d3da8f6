"""Adds the pages to an application, and makes errors there pages too; the API's errors stay problem details."""

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
from outwait.web.pages.rendering import HEADERS, assets, drawn
from outwait.web.pages.session import Tries, Viewer, viewer
from outwait.web.services import services
from outwait.worker.model.errors import OperatorError, OutwaitError, Unauthenticated

OTHERS = ("/v1/", "/webhooks/", "/metrics", "/livez", "/readyz")
"""Paths that are no pages: programs ask there."""

YEAR = 365 * 86400

Fallback = Callable[[Request, Any], Any]
"""What makes a problem of an error; a coroutine function."""

router = APIRouter(include_in_schema=False)


@router.get("/assets/{name}")
async def asset(name: str) -> Response:
    """A file of ours. Its address changes when it does, so it may be kept for good."""
    found = assets().get(name)
    if found is None:
        raise HTTPException(404)
    headers = {"Cache-Control": f"public, max-age={YEAR}, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(found.body, headers=headers, media_type=found.media_type)


def install(app: FastAPI) -> None:
    """Add the pages. Comes after `problems.install`, whose answers become pages for people."""
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
        return _page(request, await fallback(request, error), await _seen(request, error))

    return handler


def _for_people(request: Request) -> bool:
    return not request.url.path.startswith(OTHERS) and "text/html" in request.headers.get("accept", "")


def _to_login(request: Request) -> Response:
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    wanted = path if request.method == "GET" else "/"
    return RedirectResponse("/login" if wanted == "/" else f"/login?next={quote(wanted)}", 303, HEADERS)


async def _seen(request: Request, error: Exception) -> Viewer | None:
    """Who is to see the error, for the way back; nobody knows while the store is away."""
    with contextlib.suppress(OutwaitError):
        return None if isinstance(error, OperatorError) else await viewer(request, services(request))
    return None


def _page(request: Request, problem: Response, seen: Viewer | None) -> Response:
    told, status = json.loads(bytes(problem.body)), problem.status_code
    answer = drawn(
        request, "error.html", status=status, viewer=seen, title=told["title"], detail=told.get("detail", "")
    )
    for name in ("retry-after", "allow"):
        if name in problem.headers:
            answer.headers[name] = problem.headers[name]
    return answer
