"""Processes of ours that should run: started, started again when they end, and ended together."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outwait.worker.local.processes import Child

log = logging.getLogger(__name__)

BACKOFF_MAX = 30.0
"""Maximum seconds before a restart."""

SETTLED = 60.0
"""Seconds after which a process counts as healthy, so that its next restart waits only a second."""


@dataclass
class Service:
    """One of our processes that should run: started again, ever later, when it ends.

    Args:
        name: in the log.
        argv: the command.
        env: its whole environment.
        grace: seconds it gets to end.
    """

    name: str
    argv: list[str]
    env: Mapping[str, str]
    grace: float = 10
    child: Child | None = None
    started: float = 0
    restarts: int = 0
    due: float = 0

    def tend(self, now: float) -> None:
        """Start it if it should run and does not. `now` is the monotonic clock."""
        if self.child and self.child.code is None:
            return
        if self.child:
            self._ended(now)
        if now >= self.due:
            self.child = Child(self.argv, env=self.env)
            self.started = now
            log.info("service-started", extra={"service": self.name, "pid": self.child.pid})

    def _ended(self, now: float) -> None:
        if self.child is None:
            return
        code = self.child.stop(grace=0)
        self.child = None
        self.restarts = 0 if now - self.started > SETTLED else self.restarts + 1
        wait = min(2.0 ** max(self.restarts - 1, 0), BACKOFF_MAX)
        self.due = now + wait
        log.warning("service-ended", extra={"service": self.name, "code": code, "restart_in": wait})


def stop(services: Iterable[Service], at_once: threading.Event | None = None) -> None:
    """End these services together. Kill those that have not ended within their grace, or when `at_once` is set."""
    running = [service for service in services if service.child]
    for service in running:
        if service.child:
            service.child.terminate()
    deadline = time.monotonic() + max((service.grace for service in running), default=0)
    while time.monotonic() < deadline and not (at_once and at_once.is_set()):
        if all(service.child is None or service.child.code is not None for service in running):
            break
        time.sleep(0.05)
    for service in running:
        if service.child:
            code = service.child.stop(grace=0)
            log.info("service-stopped", extra={"service": service.name, "code": code})
            service.child = None


def command(*words: str) -> list[str]:
    """The command line of one of our own processes.

    With `-P` Python looks for no module in the folder that it runs in, where a user's `config.py` or `redis.py` may be.
    """
    return [sys.executable, "-P", "-m", "outwait", *words]
