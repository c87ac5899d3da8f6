"""Limits the size of every request's body: by its Content-Length, and by the bytes that really arrive."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outwait.web.problems import problem

EXEMPT = "/webhooks/"
"""Paths with a limit of their own (outwait/web/mailbox.py), which keeps the first bytes of a body that is too large."""


class BodyLimit:
    """ASGI middleware.

    Args:
        app: the application behind it.
        limit: bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._message = f"a body may have at most {limit} bytes (OUTWAIT_WEB__BODY_MAX)"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 if Content-Length is too large; otherwise raise it where the body is read."""
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self._app(scope, receive, send)
        elif self._announces_too_much(scope):
            await problem(413, "content_too_large", "Content Too Large", self._message)(scope, receive, send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _announces_too_much(self, scope: Scope) -> bool:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        return length.isdigit() and int(length[:20]) > self._limit

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(413, self._message)
            return message

        return counted
