"""Limits of every request: of its head and its speed (see protocol.py), and of its body, by the bytes that arrive."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outwait.web.problems import problem

HEAD_MAX, HEAD_FIELDS = 32_768, 100
"""Bytes and fields of a request's head, and of what follows its body."""

PIPELINED = 16
"""Requests of one connection that wait behind the one that is answered."""

SPEED = 1024
"""Bytes a second that a body needs, after its first `OUTWAIT_WEB__READ_TIME` seconds."""

FORM_MAX = 65_536
"""Bytes of a form: it is read before its sender is known."""

AT_ONCE = 16
"""Bodies of the largest size that are in memory at the same time."""

API = "/v1/"
"""Paths whose bodies are read for valid keys only."""

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
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 if Content-Length is too large; otherwise raise it where the body is read."""
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive, self._limit if scope["path"].startswith(API) else min(self._limit, FORM_MAX))
        if body.announced_too_large(scope):
            await problem(413, "content_too_large", "Content Too Large", body.message)(scope, receive, send)
            return
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._held -= body.size

    def hold(self, size: int) -> None:
        """Count bytes that are in memory until their request is answered. Raises HTTPException: there are too many."""
        self._held += size
        if self._held > AT_ONCE * self._limit:
            raise HTTPException(503, "too many large bodies at the same time: try again", {"Retry-After": "1"})


class _Body:
    """One request's body while it is read."""

    def __init__(self, limits: BodyLimit, receive: Receive, limit: int) -> None:
        self._limits = limits
        self._receive = receive
        self._limit = limit
        self.size = 0
        self.message = f"a body may have at most {limit} bytes" + (
            " (OUTWAIT_WEB__BODY_MAX)" if limit != FORM_MAX else " here"
        )

    def announced_too_large(self, scope: Scope) -> bool:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        return length.isdigit() and int(length[:20]) > self._limit

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        self.size += size
        self._limits.hold(size)
        if self.size > self._limit:
            raise HTTPException(413, self.message)
        return message
