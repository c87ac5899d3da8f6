"""How long jobs took, as the record script keeps it. Read now and then and never waited for."""

import asyncio
import logging
from contextvars import Context

from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.store.connection import Connection

log = logging.getLogger(__name__)

REFRESH = 30.0
"""Seconds that what was read stays good."""


class Durations:
    """Durations of jobs by operation, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str, str], tuple[float, ...]] = {}
        self._stale_at: dict[tuple[str, str], float] = {}
        self._reading: set[asyncio.Task[None]] = set()

    def of(self, provider: str, operation: str) -> tuple[float, ...]:
        """Seconds from submit to end of the last jobs that succeeded, sorted, as last read; empty until it was read."""
        which, now = (provider, operation), asyncio.get_running_loop().time()
        if now >= self._stale_at.get(which, now):
            self._stale_at[which] = now + REFRESH
            reading = asyncio.create_task(self._read(which), context=Context())  # it belongs to no job
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)
        return self._known.get(which, ())

    async def read(self) -> None:
        """Wait for what is being read."""
        if self._reading:
            await asyncio.wait(self._reading)

    async def _read(self, which: tuple[str, str]) -> None:
        try:
            async with self._connection.translated():
                durations = await self._connection.redis.lrange(self._connection.keys("TOOK", *which), 0, -1)
        except (StoreUnavailable, StoreRefused) as error:
            log.debug("durations-not-read", extra={"operation": ":".join(which), "error": str(error)})
            return
        self._known[which] = tuple(sorted(int(took) / 1000 for took in durations))
