"""Keeps results where producers' `AsyncResult` looks, and wakes those who wait there."""

from collections.abc import Sequence

from outwait.worker.store import codec
from outwait.worker.store.connection import Connection


class ProducerResults:
    """What Celery's own Redis backend would keep, for one event loop. Its keys are outside our names."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def keep(self, results: Sequence[tuple[str, bytes]], *, expires_s: int) -> None:
        """Keep pairs of key and encoded result for so long. Raises StoreUnavailable."""
        keys = [key for key, _ in results]
        rows = [codec.plain(encoded) for _, encoded in results]
        async with self._connection.translated():
            await self._connection.scripts.run("keep_results", keys=keys, expires_s=expires_s, results=rows)
