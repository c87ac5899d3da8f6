"""Runs the web application on an ASGI server until a signal stops it."""

import logging
import signal
import socket
from typing import cast

import uvicorn
from fastapi import FastAPI

from outwait.config.settings import Settings
from outwait.web.app import create
from outwait.web.protocol import Caller, Config
from outwait.web.services import Services

log = logging.getLogger(__name__)

GRACE = 10
"""Seconds that open requests have to end at shutdown."""

BACKLOG = 2048
"""Connections that wait in the system for us."""

ACCEPTED = 128
"""Connections that are accepted before the first of them is counted: asyncio takes its `backlog` at a time."""

TICKS, TOLD_EVERY = 10, 600
"""uvicorn ticks ten times a second: ticks between two checks of the connections, and between two log lines."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError, and OSError if the address cannot be listened on."""
    address, port = settings.web.address, settings.web.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=BACKLOG) as listening:
        # asyncio sets this only on sockets created with proto=IPPROTO_TCP. Without it, a small answer took 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = f"[{address}]" if family is socket.AF_INET6 else address
        signal.signal(signal.SIGTERM, _ignore)
        # We log its start and end ourselves, and how many connections it refused. It warns of every malformed request.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        log.info("web-listening", extra={"url": f"http://{host}:{listening.getsockname()[1]}"})
        app = create(settings)
        config = Config(
            app,
            settings.web,
            backlog=ACCEPTED,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
        _Server(config, app).run(sockets=[listening])
    log.info("web-stopped")


def _ignore(*_: object) -> None:
    """Ignore a signal: after its shutdown uvicorn raises SIGTERM again, which would end this process with an error."""


class _Server(uvicorn.Server):
    config: Config

    def __init__(self, config: Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, with the system's longer queue: asyncio has made it as short as its own."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Close the connections of callers that take too long, and tell of those that were refused."""
        if counter % TICKS == 0:
            for connection in list(self.server_state.connections):
                cast("Caller", connection).check()
        book = self.config.connections
        if counter % TOLD_EVERY == 0 and book.ended:
            log.warning("connections-refused", extra={"count": book.ended, "open": len(self.server_state.connections)})
            book.ended = 0
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer those who wait for jobs at once, so that they can ask another process."""
        services: Services = self._app.state.services
        services.watch.end()
        await super().shutdown(sockets)
