"""Appends deliveries to Redis streams of the user's, outside our key names."""

from collections.abc import Mapping
from typing import Any, cast

from outwait.worker.store.connection import Connection


class Streams:
    """Streams on the store's Redis, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, key: str, fields: Mapping[str, str | bytes], maxlen: int | None = None) -> str:
        """Append an entry and give back its id; `maxlen` trims the stream to about that many."""
        async with self._connection.translated(logged=False):
            entry = await self._connection.redis.xadd(key, cast("Any", dict(fields)), maxlen=maxlen)
        return entry.decode() if isinstance(entry, bytes) else str(entry)
