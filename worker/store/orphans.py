"""Answers that were paid for and that no job is there for: its hash was lost or purged. Kept for a person."""

import msgspec

from outwait.worker.store.connection import Connection


class Orphan(msgspec.Struct, frozen=True):
    """What is known of such an answer. `at` is seconds since 1970, when it was kept.

    Args:
        job_id: the job that it was for.
        external_id: the provider's id, under which the provider has it; empty if it is not known.
        outcome: what the worker learnt: `submitted`, `wait`, `end` …
        reason: why no job has it.
    """

    job_id: str
    provider: str
    operation: str
    external_id: str
    outcome: str
    reason: str
    at: float = 0.0


class Orphans:
    """The orphans of one namespace, for one event loop. Only the record script adds to them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def newest(self, limit: int = 50) -> list[Orphan]:
        """Newest first; the newest thousand are kept."""
        async with self._connection.translated():
            rows = await self._connection.redis.lrange(self._connection.keys("ORPHANS"), 0, limit - 1)
        return [_orphan(row) for row in rows]


def _orphan(row: bytes) -> Orphan:
    at, _, record = row.partition(b" ")
    return msgspec.structs.replace(msgspec.json.decode(record, type=Orphan), at=int(at) / 1000)
