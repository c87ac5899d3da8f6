"""Runs the web application on an ASGI server until a signal stops it."""

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
"""Seconds that open requests have to end at shutdown."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError, and OSError if the address cannot be listened on."""
    address, port = settings.web.address, settings.web.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=2048) as listening:
        # asyncio sets this only on sockets created with proto=IPPROTO_TCP. Without it, a small answer took 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = f"[{address}]" if family is socket.AF_INET6 else address
        signal.signal(signal.SIGTERM, _ignore)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # we log its start and end ourselves
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


def _ignore(*_: object) -> None:
    """Ignore a signal: after its shutdown uvicorn raises SIGTERM again, which would end this process with an error."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer those who wait for jobs at once, so that they can ask another process."""
        services: Services = self._app.state.services
        services.watch.end()
        await super().shutdown(sockets)
