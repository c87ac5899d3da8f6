"""Faults on the wire: what a client gets instead of the answer."""

import asyncio
import codecs

from aiohttp import web

from outwait.sandbox.behaviour import Fault, FaultKind

_FOREVER = 3600.0
"""Seconds for which an unanswered request is held, unless the fault says otherwise."""

_CHECK_EVERY = 0.2
"""Seconds between two checks whether a client without an answer is still connected."""

BEFORE = frozenset({FaultKind.ERROR, FaultKind.DROP, FaultKind.HANG})
"""Faults whose requests are not processed (nor is a request with 429, but the limiter handles that)."""

_PAGE = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


async def spoil(fault: Fault, request: web.Request, answer: web.Response) -> web.Response:
    """Apply a fault. `answer` is the real answer, or the error that the fault orders."""
    match fault.fault:
        case FaultKind.DROP | FaultKind.DROP_AFTER:
            return _drop(request)
        case FaultKind.HANG | FaultKind.HANG_AFTER:
            await _hang(request, _FOREVER if fault.seconds is None else fault.seconds)
            return _drop(request)
        case FaultKind.ERROR | FaultKind.ERROR_AFTER | FaultKind.RATE_LIMIT:
            return answer
        case FaultKind.HEADERS:
            answer.headers.update(fault.headers)
            return answer
        case (
            FaultKind.HTML
            | FaultKind.BROKEN_JSON
            | FaultKind.EMPTY
            | FaultKind.CONTENT_TYPE
            | FaultKind.BYTE_ORDER_MARK as kind
        ):
            return _garbled(kind, answer)


def _garbled(kind: FaultKind, answer: web.Response) -> web.Response:
    body = answer.body if isinstance(answer.body, bytes) else b""
    if kind is FaultKind.HTML:
        return web.Response(text=_PAGE, content_type="text/html")
    # Only the body is damaged; the headers stay: a 429 still says how long to wait.
    headers = {name: value for name, value in answer.headers.items() if name not in ("Content-Type", "Content-Length")}
    if kind is FaultKind.CONTENT_TYPE:
        return web.Response(body=body, status=answer.status, content_type="text/plain", headers=headers)
    if kind is FaultKind.BYTE_ORDER_MARK:
        body = codecs.BOM_UTF8 + body
        return web.Response(body=body, status=answer.status, content_type="application/json", headers=headers)
    half = body[: len(body) // 2] or b"{" if kind is FaultKind.BROKEN_JSON else b""
    return web.Response(body=half, status=answer.status, content_type="application/json", headers=headers)


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # the client does not get it


async def _hang(request: web.Request, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end and _connected(request):  # noqa: ASYNC110 - aiohttp does not notify a handler of a disconnect
        await asyncio.sleep(min(_CHECK_EVERY, end - loop.time()))


def _connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()
