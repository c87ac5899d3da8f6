"""Who looks at the pages: log-ins, their cookie, and what guards every button.

A cookie opens only what its API key opens, as long as that key is good. It is sent with links from elsewhere (a chat, a
dashboard), so it is SameSite=Lax: what changes anything is a POST, which needs the page's own token and our origin too.
"""

import hashlib
import hmac
import time
from collections import OrderedDict
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Form, Request, Response

from outwait.web.services import Services, Shared
from outwait.worker.model.errors import Forbidden, RequestError, Unauthenticated
from outwait.worker.store.access import ApiKey, Scope

TRIES, TRIES_IN = 10, 60.0
"""Wrong keys that one address may try, in so many seconds."""

WATCHED = 1000
"""Addresses whose tries are remembered."""


class TooManyTries(RequestError):
    """Somebody tries one wrong key after the other."""

    code = "too_many_tries"


class Viewer(NamedTuple):
    """Somebody who is logged in: with which key, and the token of this login."""

    key: ApiKey
    token: str

    @property
    def operates(self) -> bool:
        """Whether the buttons are for them."""
        return Scope.OPERATE in self.key.scopes

    @property
    def whole(self) -> bool:
        """Whether they see what all tenants share: counts, charts, providers."""
        return self.key.tenant is None

    @property
    def csrf(self) -> str:
        """What every form of theirs carries: nobody can make it who does not know the cookie."""
        return hmac.digest(self.token.encode(), b"form", hashlib.sha256).hex()


async def viewer(request: Request, shared: Shared) -> Viewer:
    """Who is logged in. Raises Unauthenticated."""
    token = request.cookies.get(cookie_name(request, shared), "")
    key = await shared.access.session(token) if token else None
    if key is None or Scope.READ not in key.scopes:
        raise Unauthenticated("log in to see this page")
    request.state.key = key  # the log of requests names it
    return Viewer(key, token)


Viewing = Annotated[Viewer, Depends(viewer)]
"""A route's parameter: who looks."""


async def operator(request: Request, shared: Shared, seen: Viewing, csrf: Annotated[str, Form()] = "") -> Viewer:
    """Who presses a button: logged in, with the scope for it, on a page of ours. Raises Forbidden, Unauthenticated."""
    check_form(request, shared, seen, csrf)
    if not seen.operates:
        raise Forbidden(f"the API key {seen.key.name!r} may look, but has not the scope operate")
    return seen


Operating = Annotated[Viewer, Depends(operator)]
"""A route's parameter: who presses a button."""


def check_form(request: Request, shared: Services, seen: Viewer, csrf: str) -> None:
    """Refuse a form that does not come from a page that we gave to this viewer. Raises Forbidden."""
    check_origin(request, shared)
    if not hmac.compare_digest(csrf.encode(), seen.csrf.encode()):
        raise Forbidden("this form is out of date: go back, reload the page and press the button again")


def check_origin(request: Request, shared: Services) -> None:
    """Refuse a form that another site's page sends. Raises Forbidden."""
    origin = request.headers.get("origin")
    ours = {request.headers.get("host", ""), urlsplit(shared.settings.web.public_url or "").netloc}
    if origin is not None and urlsplit(origin).netloc not in ours - {""}:
        raise Forbidden("this form was sent by a page of another site")


def _secure(request: Request, shared: Services) -> bool:
    return request.url.scheme == "https" or (shared.settings.web.public_url or "").startswith("https:")


def cookie_name(request: Request, shared: Services) -> str:
    """Over https a name that browsers let no other host set."""
    return "__Host-outwait" if _secure(request, shared) else "outwait"


def set_cookie(answer: Response, request: Request, shared: Services, token: str) -> None:
    """Give the cookie of a new login, or take it away with an empty token."""
    answer.set_cookie(
        cookie_name(request, shared),
        token,
        max_age=int(shared.settings.web.session) if token else 0,
        path="/",
        secure=_secure(request, shared),
        httponly=True,
        samesite="lax",
    )


def own_path(wanted: str) -> str:
    """A path of ours to go on to after the log-in; the front page instead of anything else."""
    parts = urlsplit(wanted)
    foreign = parts.scheme or parts.netloc or not wanted.isprintable() or "\\" in wanted
    return "/" if foreign or not wanted.startswith("/") or wanted.startswith(("//", "/login")) else wanted


class Tries:
    """Counts wrong keys by address, in this process. A key cannot be guessed; this keeps the attempt cheap for us."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises TooManyTries."""
        recent = [at for at in self._wrong.get(address, []) if at > time.monotonic() - TRIES_IN]
        if len(recent) >= TRIES:
            raise TooManyTries("too many wrong keys from this address: wait a minute, then try again")

    def wrong(self, address: str) -> None:
        """Remember a wrong key."""
        tries = self._wrong.pop(address, [])
        self._wrong[address] = [*tries, time.monotonic()][-TRIES:]
        if len(self._wrong) > WATCHED:
            self._wrong.popitem(last=False)
