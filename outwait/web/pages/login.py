"""`/login` and `/logout`: an API key opens a session; `OUTWAIT_WEB__SESSION` says for how long."""

import logging
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.web.actors import actor, caller
from outwait.web.client_address import client_address
from outwait.web.pages.rendering import HEADERS, render
from outwait.web.pages.session import (
    TooManyTries,
    Tries,
    Viewing,
    check_form,
    check_origin,
    cookie_name,
    safe_path,
    set_cookie,
)
from outwait.web.services import Services, Shared
from outwait.worker.model.acts import ActKind, Actor, Via
from outwait.worker.store.access import Scope

log = logging.getLogger(__name__)

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def form(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the URL
    """The form."""
    return render(request, "login.html", status=200, next=safe_path(next), error="")


@router.post("/login")
async def log_in(
    request: Request,
    shared: Shared,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002
) -> Response:
    """Open a session and redirect to the requested page."""
    check_origin(request, shared)
    address = client_address(request)
    api_key = await shared.access.find(key.strip(), address)
    if api_key is None:
        return await _refused(request, shared, address, safe_path(next))
    if Scope.READ not in api_key.scopes:
        error = f"The API key {api_key.name!r} cannot view the pages: it lacks the scope read."
        return render(request, "login.html", status=403, next=safe_path(next), error=error)
    await shared.access.log_out(request.cookies.get(cookie_name(request, shared), ""))
    log.info("logged-in", extra={"caller": caller(api_key), "address": address})
    await shared.client.acting(actor(request, api_key, Via.PAGE)).note(ActKind.LOGIN, about="pages")
    answer = RedirectResponse(safe_path(next), 303, HEADERS)
    set_cookie(answer, request, shared, await shared.access.log_in(api_key, shared.settings.web.session))
    return answer


@router.post("/logout")
async def log_out(request: Request, shared: Shared, viewer: Viewing, csrf: Annotated[str, Form()] = "") -> Response:
    """End the session."""
    check_form(request, shared, viewer, csrf)
    await shared.access.log_out(viewer.token)
    answer = RedirectResponse("/login", 303, HEADERS)
    set_cookie(answer, request, shared, "")
    return answer


async def _refused(request: Request, shared: Services, address: str, next_path: str) -> Response:
    """The answer to a wrong key. Only wrong keys are counted and refused: nobody can lock another person out."""
    tries: Tries = request.app.state.tries
    try:
        tries.wrong(address)
    except TooManyTries as refusal:
        return render(request, "login.html", status=429, next=next_path, error=str(refusal))
    log.warning("login-refused", extra={"address": address})
    stranger = Actor(who="unknown", via=Via.PAGE, address=address)
    await shared.client.acting(stranger).note(ActKind.LOGIN_REFUSED, about="pages")
    error = "This API key is unknown, was revoked or has expired."
    return render(request, "login.html", status=401, next=next_path, error=error)
