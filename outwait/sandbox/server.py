"""The sandbox as a web application and as a process."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from outwait.sandbox.control import Control
from outwait.sandbox.elevateai import ElevateAI
from outwait.sandbox.options import SandboxOptions
from outwait.sandbox.ringcentral import RingCentral
from outwait.sandbox.unless import Unless
from outwait.sandbox.vendor import Refusal, State, Vendor, answer

VENDORS: tuple[type[Vendor], ...] = (RingCentral, ElevateAI, Unless)
"""Every provider's API that the sandbox speaks."""

log = logging.getLogger(__name__)

_BODY_MAX = 64 << 20
"""Bytes of a JSON body; uploads are streamed and have their own limit."""

_GRACE = 0.5
"""Seconds that requests under way get when the sandbox stops; some hang on purpose."""


def create_app(options: SandboxOptions) -> web.Application:
    """One application that serves every provider, the orders and the ledger."""
    state = State(options)
    vendors = [vendor(state) for vendor in VENDORS]
    app = web.Application(client_max_size=_BODY_MAX, middlewares=[_errors(vendors)])
    for vendor in vendors:
        app.add_routes(vendor.routes())
    app.add_routes(Control(state, vendors).routes())

    async def close_webhooks(_: web.Application) -> AsyncIterator[None]:
        yield
        await state.webhooks.close()

    app.cleanup_ctx.append(close_webhooks)
    return app


def _errors(vendors: Sequence[Vendor]) -> Middleware:
    """Turns the server's own errors (an unknown path, a wrong method, a body too large) into the provider's form."""

    def refusal(request: web.Request, status: int, message: str) -> web.Response:
        for vendor in vendors:
            if request.path.startswith(vendor.root + "/"):
                return vendor.refuse(Refusal(status, message))
        return answer({"error": message}, status)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            response = refusal(request, error.status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except Exception:
            log.exception("sandbox-error")
            return refusal(request, 500, "Internal server error")

    return middleware


def serve(
    options: SandboxOptions, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: how it behaves.
        host: address to listen on.
        port: 0 takes a free port.
        ready: called with the base URL once it listens.

    Raises:
        OSError: the address cannot be listened on.
    """
    asyncio.run(_serve(options, host, port, ready))


async def _serve(options: SandboxOptions, host: str, port: int, ready: Callable[[str], None] | None) -> None:
    runner = web.AppRunner(create_app(options), access_log=None, shutdown_timeout=_GRACE)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=1024).start()
        if ready is not None:
            address = runner.addresses[0]
            ready(f"http://{f'[{host}]' if ':' in host else host}:{address[1]}")
        await stop.wait()
    finally:
        await runner.cleanup()
