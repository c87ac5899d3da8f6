"""Which handler functions the workers of this store have: they say so, and a job that names another one is refused.

Producers and web processes do not import the handlers' modules, so only workers know the names. A name stays known for
a week after the last worker that had it, so that a job may be enqueued while its workers are down.
"""

import time
from collections.abc import Collection, Iterable

from outwait.worker.store.connection import Connection

ANNOUNCE_EVERY = 60.0
"""Seconds between two times at which a worker says which handlers it has."""

KEPT_MS = 7 * 86_400_000
"""Milliseconds for which a name is known after a worker last said that it has it."""

READ_AFTER = 1.0
"""Seconds after which the names are read again for the sake of one that is not known."""

FRESH = 30.0
"""Seconds for which a known name is not asked for again."""

EARLY = 50
"""Different names that are accepted before any worker has said what it has: nobody can know yet which are wrong, and
each name is a lane."""

_ANY = ""
"""Announced by each worker, for one may have no handler."""


class KnownHandlers:
    """The names of handlers in one namespace, for one event loop.

    Args:
        connection: the store's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._expected = frozenset(connection.settings.handlers.expected)
        self._names: frozenset[str] = frozenset()
        self._read_at = -FRESH
        self._announced_at = -ANNOUNCE_EVERY

    async def announce(self, names: Iterable[str]) -> None:
        """Say which handlers this worker has, if it has not done so in the last minute. Raises StoreUnavailable."""
        if time.monotonic() - self._announced_at < ANNOUNCE_EVERY:
            return
        async with self._connection.translated():
            now_ms = await self._connection.now_ms()
            async with self._connection.redis.pipeline(transaction=False) as pipe:
                pipe.zadd(self._connection.keys("HANDLERS"), dict.fromkeys((_ANY, *names), now_ms))
                pipe.zremrangebyscore(self._connection.keys("HANDLERS"), "-inf", now_ms - KEPT_MS)
                pipe.delete(self._connection.keys("HANDLERS_EARLY"))
                await pipe.execute()
        self._announced_at = time.monotonic()

    async def missing(self, names: Collection[str], ours: Collection[str] = ()) -> frozenset[str]:
        """Those of these names that no worker has; this process has `ours`. Raises StoreUnavailable."""
        asked = {name for name in names if name not in self._expected and name not in ours}
        if not asked:
            return frozenset()
        age = time.monotonic() - self._read_at
        if age > (FRESH if asked <= self._names else READ_AFTER):
            await self._read()
        unknown = asked - self._names
        if unknown and not self._names:
            return await self._too_many(unknown)
        return frozenset(unknown)

    async def _read(self) -> None:
        async with self._connection.translated():
            rows = await self._connection.redis.zrange(self._connection.keys("HANDLERS"), 0, -1)
        self._names = frozenset(row.decode() for row in rows)
        self._read_at = time.monotonic()

    async def _too_many(self, names: Collection[str]) -> frozenset[str]:
        """Nobody knows any name yet: the first ones are accepted."""
        key = self._connection.keys("HANDLERS_EARLY")
        async with self._connection.translated():
            early = {row.decode() for row in await self._connection.redis.zrange(key, 0, -1)}
            new = sorted(set(names) - early)
            accepted = new[: max(0, EARLY - len(early))]
            if accepted:
                now_ms = await self._connection.now_ms()
                await self._connection.redis.zadd(key, dict.fromkeys(accepted, now_ms))
        return frozenset(new[len(accepted) :])


def refusal(name: str) -> str:
    """Why a job that names this handler is refused."""
    return (
        f"no worker has a handler {name!r}: correct the name, or first start a worker whose OUTWAIT_HANDLERS__MODULES "
        "has it, or list it in OUTWAIT_HANDLERS__EXPECTED"
    )
