"""The outermost middleware: request ids, security headers, HEAD requests, and the log line of each request."""

import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outwait.web.actors import caller
from outwait.web.client_address import client_address

log = logging.getLogger(__name__)

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer that does not set them itself."""

QUIET = ("/livez", "/readyz", "/metrics", "/assets/", "/webhooks/")
"""Paths whose requests are logged as DEBUG: there are many of them, and other log lines or metrics cover them."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Front:
    """ASGI middleware: the outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        scope, head = {**scope}, scope["method"] == "HEAD"  # a copy: the server still reads the original
        request = _Request(scope, send)
        try:
            if head:
                scope["method"] = "GET"  # the same answer as to a GET, without its body
                await self._app(scope, request.disconnecting(receive), request.send_head)
            else:
                await self._app(scope, receive, request.send)
        finally:
            request.log()


class _Request:
    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        self._scope = scope
        self._send = send
        self._method = scope["method"]
        self._began = time.perf_counter()
        self._status = 500
        self._headed = False
        scope["state"]["request_id"] = self.id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["X-Request-Id"] = self.id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def send_head(self, message: Message) -> None:
        """Send the headers only, without waiting for a stream to end."""
        if message["type"] == "http.response.start":
            await self.send(message)
            await self._send({"type": "http.response.body", "body": b""})
            self._headed = True

    def disconnecting(self, receive: Receive) -> Receive:
        """A `receive` that reports a disconnect once the headers are sent, so that streams end."""

        async def received() -> Message:
            return {"type": "http.disconnect"} if self._headed else await receive()

        return received

    def log(self) -> None:
        """Write the log line. It names the route and not the path, which may hold a secret."""
        route: Any = self._scope.get("route")
        key = self._scope["state"].get("key")
        fields = {
            "request": self.id,
            "method": self._method,
            "route": getattr(route, "path", "") or "none",
            "status": self._status,
            "ms": round((time.perf_counter() - self._began) * 1000, 1),
            "caller": caller(key) if key else "",
            "address": client_address(HTTPConnection(self._scope)),
            "job": self._scope.get("path_params", {}).get("job_id", ""),
        }
        log.log(logging.DEBUG if self._scope["path"].startswith(QUIET) else logging.INFO, "request", extra=fields)
