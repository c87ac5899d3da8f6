"""Log-ins to the pages, their cookie, and the checks of every form.

A cookie gives the rights of its API key, as long as that key is valid. The cookie is SameSite=Lax, so that links from
a chat or a dashboard work. Every change is a POST, which also needs the page's CSRF token and an Origin of ours.
"""

import hashlib
import hmac
import time
from collections import OrderedDict
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Form, Request, Response

from outwait.client.store import StoreClient
from outwait.web.actors import actor
from outwait.web.client_address import client_address
from outwait.web.services import Services, Shared
from outwait.worker.model.acts import Via
from outwait.worker.model.errors import Forbidden, RequestError, Unauthenticated
from outwait.worker.model.networks import subscriber
from outwait.worker.store.access import ApiKey, Scope

TRIES, TRIES_IN = 10, 60.0
"""How many wrong keys of one caller are answered in full, and in how many seconds."""

ADDRESSES = 1000
"""Callers whose tries are remembered."""


class TooManyTries(RequestError):
    """Too many wrong API keys came from one caller."""

    code = "too_many_tries"


class Viewer(NamedTuple):
    """A person who is logged in: the API key, and the token of this login."""

    key: ApiKey
    token: str

    @property
    def operates(self) -> bool:
        """Whether they may use the buttons."""
        return Scope.OPERATE in self.key.scopes

    @property
    def sees_all_tenants(self) -> bool:
        """Whether they see the jobs of all tenants, and with them counts, charts and providers."""
        return self.key.tenant is None

    @property
    def csrf(self) -> str:
        """The CSRF token of their forms. It can only be made with the cookie."""
        return hmac.digest(self.token.encode(), b"form", hashlib.sha256).hex()


async def current_viewer(request: Request, shared: Shared) -> Viewer:
    """The person who is logged in. Raises Unauthenticated or Forbidden."""
    token = request.cookies.get(cookie_name(request, shared), "")
    key = await shared.access.session(token, client_address(request)) if token else None
    if key is None or Scope.READ not in key.scopes:
        raise Unauthenticated("log in to see this page")
    request.state.key = key  # the log of requests names it
    return Viewer(key, token)


Viewing = Annotated[Viewer, Depends(current_viewer)]
"""A route's parameter: the person who views a page."""


async def operator(request: Request, shared: Shared, viewer: Viewing, csrf: Annotated[str, Form()] = "") -> Viewer:
    """The person who sent a form, if they may use the buttons. Raises Forbidden or Unauthenticated."""
    check_form(request, shared, viewer, csrf)
    if not viewer.operates:
        raise Forbidden(
            f"the API key {viewer.key.name!r} lacks the scope operate: it can view pages but change nothing"
        )
    return viewer


Operating = Annotated[Viewer, Depends(operator)]
"""A route's parameter: the person who sent a form."""


async def _deciding(request: Request, shared: Shared, viewer: Operating) -> StoreClient:
    return shared.client.acting(actor(request, viewer.key, Via.PAGE))


Deciding = Annotated[StoreClient, Depends(_deciding)]
"""A route's parameter: the client for what the person who sent a form decides."""


def check_form(request: Request, shared: Services, viewer: Viewer, csrf: str) -> None:
    """Refuse a form that does not come from one of our pages for this viewer. Raises Forbidden."""
    check_origin(request, shared)
    if not hmac.compare_digest(csrf.encode(), viewer.csrf.encode()):
        raise Forbidden("this form is out of date: go back, reload the page and press the button again")


def check_origin(request: Request, shared: Services) -> None:
    """Refuse a form from a page of another site. Raises Forbidden."""
    origin = request.headers.get("origin")
    ours = {request.headers.get("host", ""), urlsplit(shared.settings.web.public_url or "").netloc}
    if origin is not None and urlsplit(origin).netloc not in ours - {""}:
        raise Forbidden("this form was sent by a page of another site")


def _secure(request: Request, shared: Services) -> bool:
    return request.url.scheme == "https" or (shared.settings.web.public_url or "").startswith("https:")


def cookie_name(request: Request, shared: Services) -> str:
    """The cookie's name. Over https it has the prefix __Host-, so that no other host can set it."""
    return "__Host-outwait" if _secure(request, shared) else "outwait"


def set_cookie(answer: Response, request: Request, shared: Services, token: str) -> None:
    """Set the cookie of a new login; an empty token removes it."""
    answer.set_cookie(
        cookie_name(request, shared),
        token,
        max_age=int(shared.settings.web.session) if token else 0,
        path="/",
        secure=_secure(request, shared),
        httponly=True,
        samesite="lax",
    )


def safe_path(path: str) -> str:
    """The path to continue with after the log-in: `path` if it is one of ours, else the front page."""
    parts = urlsplit(path)
    foreign = parts.scheme or parts.netloc or not path.isprintable() or "\\" in path
    return "/" if foreign or not path.startswith("/") or path.startswith(("//", "/login")) else path


class Tries:
    """Counts wrong keys by caller, in this process. Keys cannot be guessed; this limits what is logged of attempts."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wrong(self, address: str) -> None:
        """Count a wrong key. Raises TooManyTries if there were many of them."""
        now, caller = time.monotonic(), subscriber(address)
        recent = [at for at in self._wrong.pop(caller, []) if at > now - TRIES_IN]
        self._wrong[caller] = [*recent, now][-TRIES:]
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)
        if len(recent) >= TRIES:
            raise TooManyTries("too many wrong keys from this address: wait a minute, then try again")
