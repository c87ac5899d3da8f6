"""Appends deliveries to Redis streams of the user's, outside our key names."""

from collections.abc import Mapping
from typing import Any, cast

from outwait.worker.model.errors import DeliveryRefused
from outwait.worker.store.connection import Connection

CELERY_QUEUE = "celery"
"""Celery's default queue."""


class Streams:
    """Streams on the store's Redis, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, key: str, fields: Mapping[str, str | bytes], maxlen: int | None = None) -> str:
        """Append an entry and give back its id; `maxlen` trims the stream to about that many.

        Raises:
            DeliveryRefused: `key` is a queue of Celery's, which is no key while it is empty: a stream there breaks it.
        """
        settings = self._connection.settings
        if key in {settings.intake.queue, CELERY_QUEUE, *settings.step_queues.values()}:
            raise DeliveryRefused(f"stream {key} would take the place of a Celery queue of that name: use another key")
        async with self._connection.translated(logged=False):
            entry = await self._connection.redis.xadd(key, cast("Any", dict(fields)), maxlen=maxlen)
        return entry.decode() if isinstance(entry, bytes) else str(entry)
