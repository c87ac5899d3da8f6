"""What each tenant's jobs may take: the limits that the enqueue script applies."""

import time

import msgspec
from redis.exceptions import NoPermissionError

from outwait.worker.store.connection import Connection

ASK_EVERY = 60.0
"""Seconds for which Redis's `maxmemory` is remembered."""


class QuotaLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of one tenant, as the enqueue script reads them; 0 is no limit.

    Args:
        open_jobs: jobs that have not ended.
        jobs_per_minute: jobs that are created in a minute of the clock.
        bytes: of its stored requests and results, and 1 KiB for each job.
    """

    open_jobs: int = 0
    jobs_per_minute: int = 0
    bytes: int = 0


class Quotas:
    """The limits of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._settings = connection.settings.tenants
        self._asked_at = -ASK_EVERY
        self._maxmemory = 0

    async def limits(self) -> QuotaLimits:
        """What a tenant may take now. Raises StoreUnavailable."""
        settings = self._settings
        share = int(await self._memory() * settings.memory_share) if settings.memory_share < 1 else 0
        return QuotaLimits(
            open_jobs=settings.open_jobs,
            jobs_per_minute=settings.jobs_per_minute,
            bytes=min(filter(None, (settings.bytes, share)), default=0),
        )

    async def _memory(self) -> int:
        """Redis's `maxmemory`; 0 if it has none, or does not tell this user."""
        now = time.monotonic()
        if now >= self._asked_at + ASK_EVERY:
            async with self._connection.translated():
                try:
                    info = await self._connection.redis.info("memory")
                    self._maxmemory = int(info.get("maxmemory", 0))
                except NoPermissionError:
                    self._maxmemory = 0
            self._asked_at = now
        return self._maxmemory
