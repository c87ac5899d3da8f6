"""One event loop's connections to the store, and the one place where Redis's errors become ours."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from outwait.config.settings import Settings
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.store.keys import Keys
from outwait.worker.store.outages import log_of, translate
from outwait.worker.store.pool import Pool
from outwait.worker.store.scripts import Scripts, copies_of

HEALTH_CHECK = 10
"""Seconds after which an idle connection is tried before it is used: a half-open one is noticed."""

_MASTER_MOVED = frozenset({StoreOutage.READ_ONLY, StoreOutage.MASTER_DOWN, StoreOutage.NO_REPLICAS})


class Connection:
    """Redis, the key names and the scripts, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace)
        # A connection that Redis closed (it restarted, say) shows only when it is used: once more, on a new one.
        # Every script may come twice: what was written the first time is refused or the same the second.
        pool = Pool(settings, health_check=HEALTH_CHECK, retries=1)
        self.epoch = pool.epoch
        # redis-py's types know neither bytes-only replies nor its own pipelines.
        self.redis: Any = Redis.from_pool(pool)
        self.scripts = Scripts(self.redis, self.keys, copies_of(settings.store))
        self._where = settings.redis_address.shown
        self._outages = log_of(settings.redis_url.get_secret_value())

    @asynccontextmanager
    async def translated(self, *, logged: bool = True) -> AsyncIterator[None]:
        """Raises StoreUnavailable or StoreRefused in place of Redis's own errors.

        Args:
            logged: False where keys of users are written, whose refusal is no outage of the store.
        """
        began = time.monotonic()
        try:
            yield
        except exceptions.RedisError as error:
            ours = translate(error, self._where)
            if isinstance(ours, StoreUnavailable):
                if logged:
                    self._outages.down(ours)
                await self._leave(ours.outage)
            raise ours from error
        self._outages.up(began)

    async def probe(self) -> None:
        """Write a key and delete it in one script.

        Raises StoreUnavailable while Redis takes no writes, or cannot copy them to where they must stand.
        """
        began = time.monotonic()
        async with self.translated():
            await self.scripts.run("probe", promised=True)
        self.wrote(began)

    @property
    def in_outage(self) -> bool:
        """Whether this process has met an outage of the store of which nobody has seen the end."""
        return self._outages.open

    def wrote(self, began: float) -> None:
        """Something was written by a call that began then (monotonic): whatever outage there was before is over."""
        self._outages.up(began, wrote=True)

    async def _leave(self, outage: StoreOutage) -> None:
        """Connect anew after an outage in which another server may be the master: behind a proxy or a name, say."""
        if outage in _MASTER_MOVED:
            with suppress(exceptions.RedisError, OSError):
                await self.redis.connection_pool.disconnect(inuse_connections=False)

    async def now_ms(self) -> int:
        """Redis's time: milliseconds since 1970. Raises Redis's own errors."""
        second, micro = await self.redis.time()
        return int(second * 1000 + micro // 1000)

    async def close(self) -> None:
        """Close the connections of this loop."""
        await self.redis.aclose()
