"""Reads the rest of a body that nobody wants, so that its sender can read the answer."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST = 30.0
"""Seconds for which the rest of a body is read at most."""


class Drain:
    """ASGI middleware: an answer that comes before its request is read ends only when the request does.

    A server that closes a connection on which bytes still arrive resets it, and the client loses the answer, 413 say.
    A connection that stays open needs nothing: the server itself reads on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and _may_be_cut_off(scope):
            request = _Request(receive, send)
            await self._app(scope, request.receive, request.send)
        else:
            await self._app(scope, receive, send)


def _may_be_cut_off(scope: Scope) -> bool:
    """Whether the request has a body, and its connection ends with the answer."""
    headers = Headers(scope=scope)
    if headers.get("expect", "").lower() == "100-continue":
        return False  # nobody asked for the body, so it does not come
    closes = scope["http_version"] == "1.0" or "close" in headers.get("connection", "").lower()
    return closes and ("transfer-encoding" in headers or headers.get("content-length", "0") != "0")


class _Request:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._arrived = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._arrived = self._arrived or not message.get("more_body")  # also of a client that is gone
        return message

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body") or self._arrived:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST):
                while not self._arrived:
                    await self.receive()
        await self._send({"type": "http.response.body"})
