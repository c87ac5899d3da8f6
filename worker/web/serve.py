"""Runs the web application on an ASGI server until it is told to stop."""

import logging
import socket

import uvicorn

from config.settings import Settings
from worker.web.app import create

log = logging.getLogger(__name__)

GRACE = 10
"""Seconds in which open requests may end at shutdown."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError, and OSError if the address cannot be had."""
    wanted = settings.web
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    with socket.create_server((wanted.address, wanted.port), family=family, backlog=2048) as listening:
        host = f"[{wanted.address}]" if family is socket.AF_INET6 else wanted.address
        log.info("web-listening", extra={"url": f"http://{host}:{listening.getsockname()[1]}"})
        config = uvicorn.Config(
            create(settings),
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
        uvicorn.Server(config).run(sockets=[listening])
