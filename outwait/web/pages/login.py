"""`/login` and `/logout`: an API key opens a session, as long as `OUTWAIT_WEB__SESSION` says."""

import logging
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.web.pages.rendering import HEADERS, drawn
from outwait.web.pages.session import (
    TooManyTries,
    Tries,
    Viewing,
    check_form,
    check_origin,
    cookie_name,
    own_path,
    set_cookie,
)
from outwait.web.services import Shared
from outwait.worker.store.access import Scope

log = logging.getLogger(__name__)

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def form(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name that people see in the address
    """The form."""
    return drawn(request, "login.html", status=200, next=own_path(next), wrong="")


@router.post("/login")
async def log_in(
    request: Request,
    shared: Shared,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002
) -> Response:
    """Open a session and go on to the page that was asked for."""
    check_origin(request, shared)
    address, tries = request.client.host if request.client else "", _tries(request)
    try:
        tries.check(address)
    except TooManyTries as error:
        return drawn(request, "login.html", status=429, next=own_path(next), wrong=str(error))
    found = await shared.access.find(key.strip())
    if found is None:
        tries.wrong(address)
        log.warning("login-refused", extra={"address": address})
        wrong = "This key is unknown or was revoked."
        return drawn(request, "login.html", status=401, next=own_path(next), wrong=wrong)
    if Scope.READ not in found.scopes:
        wrong = f"The key {found.name!r} may not look: it has not the scope read."
        return drawn(request, "login.html", status=403, next=own_path(next), wrong=wrong)
    await shared.access.log_out(request.cookies.get(cookie_name(request, shared), ""))
    log.info("logged-in", extra={"key": found.name, "address": address})
    answer = RedirectResponse(own_path(next), 303, HEADERS)
    set_cookie(answer, request, shared, await shared.access.log_in(found, shared.settings.web.session))
    return answer


@router.post("/logout")
async def log_out(request: Request, shared: Shared, seen: Viewing, csrf: Annotated[str, Form()] = "") -> Response:
    """End the session."""
    check_form(request, shared, seen, csrf)
    await shared.access.log_out(seen.token)
    answer = RedirectResponse("/login", 303, HEADERS)
    set_cookie(answer, request, shared, "")
    return answer


def _tries(request: Request) -> Tries:
    found: Tries = request.app.state.tries
    return found
