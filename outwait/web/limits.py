"""Bounds every request's body, before anybody reads it: by what it says of its length, and by what really comes."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outwait.web.problems import problem

OWN = "/webhooks/"
"""Paths with bounds of their own (worker/web/mailbox.py): they keep the head of what is too large."""


class BodyLimit:
    """ASGI middleware.

    Args:
        app: what it guards.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._told = f"a body has {most} bytes at most (OUTWAIT_WEB__BODY_MAX)"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 413 itself where the length is told; else whoever reads the body gets the error."""
        if scope["type"] != "http" or scope["path"].startswith(OWN):
            await self._app(scope, receive, send)
        elif self._says_too_much(scope):
            await problem(413, "content_too_large", "Content Too Large", self._told)(scope, receive, send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _says_too_much(self, scope: Scope) -> bool:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        return length.isdigit() and int(length[:20]) > self._most

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, self._told)
            return message

        return counted
