"""Runs the web application on an ASGI server until it is told to stop."""

import logging
import signal
import socket

import uvicorn
from fastapi import FastAPI

from outwait.config.settings import Settings
from outwait.web.app import create
from outwait.web.services import Services

log = logging.getLogger(__name__)

GRACE = 10
"""Seconds in which open requests may end at shutdown."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError, and OSError if the address cannot be had."""
    wanted = settings.web
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    with socket.create_server((wanted.address, wanted.port), family=family, backlog=2048) as listening:
        # asyncio does this only for sockets made for TCP by name, which these are not: a small answer took 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = f"[{wanted.address}]" if family is socket.AF_INET6 else wanted.address
        signal.signal(signal.SIGTERM, _ended)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its start and end are told by us
        log.info("web-listening", extra={"url": f"http://{host}:{listening.getsockname()[1]}"})
        app = create(settings)
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
        _Server(config, app).run(sockets=[listening])
    log.info("web-stopped")


def _ended(*_: object) -> None:
    """At its end uvicorn raises the signal that ended it once more, and a process that is well would die of it."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Those who wait for jobs are answered at once, and ask another process."""
        services: Services = self._app.state.services
        services.watch.end()
        await super().shutdown(sockets)
