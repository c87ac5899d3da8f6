"""Faults on the wire: what a request meets instead of its answer."""

import asyncio

from aiohttp import web

from outwait.sandbox.behaviour import Fault, FaultKind

_FOREVER = 3600.0
"""Seconds that an unanswered request is held, unless the fault says."""

_LOOK = 0.2
"""Seconds between two looks whether a client that gets no answer is still there."""

BEFORE = frozenset({FaultKind.ERROR, FaultKind.DROP, FaultKind.HANG})
"""Faults whose requests are not processed (a 429 too, but that is the limit's work)."""

_PAGE = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


async def spoil(fault: Fault, request: web.Request, answer: web.Response) -> web.Response:
    """What the client gets. `answer` is the real one, or the error that the fault asks for."""
    match fault.fault:
        case FaultKind.DROP | FaultKind.DROP_AFTER:
            return _drop(request)
        case FaultKind.HANG | FaultKind.HANG_AFTER:
            await _hang(request, _FOREVER if fault.seconds is None else fault.seconds)
            return _drop(request)
        case FaultKind.ERROR | FaultKind.ERROR_AFTER | FaultKind.RATE_LIMIT:
            return answer
        case FaultKind.HTML | FaultKind.BROKEN_JSON | FaultKind.EMPTY | FaultKind.CONTENT_TYPE as kind:
            return _garbled(kind, answer)


def _garbled(kind: FaultKind, answer: web.Response) -> web.Response:
    body = answer.body if isinstance(answer.body, bytes) else b""
    if kind is FaultKind.HTML:
        return web.Response(text=_PAGE, content_type="text/html")
    # What garbles a body leaves the headers alone: a 429 still tells how long to wait.
    headers = {name: value for name, value in answer.headers.items() if name not in ("Content-Type", "Content-Length")}
    if kind is FaultKind.CONTENT_TYPE:
        return web.Response(body=body, status=answer.status, content_type="text/plain", headers=headers)
    half = body[: len(body) // 2] or b"{" if kind is FaultKind.BROKEN_JSON else b""
    return web.Response(body=half, status=answer.status, content_type="application/json", headers=headers)


def _drop(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # nobody gets it


async def _hang(request: web.Request, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end and _there(request):  # noqa: ASYNC110 - aiohttp tells no handler that its client left
        await asyncio.sleep(min(_LOOK, end - loop.time()))


def _there(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()
