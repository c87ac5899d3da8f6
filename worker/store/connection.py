"""One event loop's connections to the store, and the one place where Redis's errors become ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from outwait.config.settings import Settings
from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.store.keys import Keys
from outwait.worker.store.scripts import Scripts

HEALTH_CHECK = 10
"""Seconds after which an idle connection is tried before it is used: a half-open one is noticed."""

CONNECTIONS = 64
"""Connections to Redis at once, of one event loop; a caller beyond waits. redis-py's own pool refuses the 101st."""


class Connection:
    """Redis, the key names and the scripts, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value()
        self.settings = settings
        self.keys = Keys(settings.namespace)
        # redis-py's types know neither bytes-only replies nor its own pipelines.
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=settings.store.timeout,
            socket_timeout=settings.store.timeout,
            socket_connect_timeout=min(5.0, settings.store.timeout),
            socket_keepalive=True,
            health_check_interval=HEALTH_CHECK,
            # A connection that Redis closed (it restarted, say) shows only when it is used: once more, on a new one.
            # Every script may come twice: what was written the first time is refused or the same the second.
            retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
        )
        self.redis: Any = Redis.from_pool(pool)
        self.scripts = Scripts(self.redis, self.keys)
        self._where = urlsplit(url).hostname

    @asynccontextmanager
    async def translated(self) -> AsyncIterator[None]:
        """Raises StoreUnavailable or StoreRefused in place of Redis's own errors."""
        try:
            yield
        except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError) as error:
            raise StoreUnavailable(
                f"Redis at {self._where} does not answer ({error}); check OUTWAIT_REDIS_URL and that it runs"
            ) from error
        except (exceptions.ReadOnlyError, exceptions.OutOfMemoryError) as error:
            raise StoreUnavailable(f"Redis at {self._where} cannot write: {error}") from error
        except exceptions.ResponseError as error:
            raise StoreRefused(f"Redis at {self._where} refuses a command: {error}") from error

    async def now_ms(self) -> int:
        """Redis's time: milliseconds since 1970. Raises Redis's own errors."""
        second, micro = await self.redis.time()
        return int(second * 1000 + micro // 1000)

    async def close(self) -> None:
        """Close the connections of this loop."""
        await self.redis.aclose()
