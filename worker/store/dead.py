"""Shows the deliveries that were given up, page by page. Reads only."""

from collections.abc import AsyncIterator, Sequence

from msgspec.structs import asdict

from outwait.worker.model.jobs import Delivery, job_of
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField
from outwait.worker.store.reads import delivery

PAGE = 200
"""Deliveries in one round trip."""


class DeadDelivery(Delivery, frozen=True):
    """A delivery that was given up: its job's provider and tenant, and when (seconds since 1970)."""

    provider: str = ""
    died: float = 0
    tenant: str | None = None


class DeadLetters:
    """The dead deliveries of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys

    async def pages(self, since: float | None = None) -> AsyncIterator[list[DeadDelivery]]:
        """Those that are dead now and died since then (seconds since 1970), newest first.

        What is replayed between two pages makes none of the others be passed over; what dies meanwhile is not shown.
        """
        low = "-inf" if since is None else since * 1000
        async with self._connection.translated():
            now, kept = await self._connection.now_ms(), 0
            while rows := await self._redis.zrevrangebyscore(
                self._keys("DEAD"), now, low, start=kept, num=PAGE, withscores=True
            ):
                yield await self._read(rows)
                scores = await self._redis.zmscore(self._keys("DEAD"), [delivery_id for delivery_id, _ in rows])
                kept += sum(score is not None and score <= now for score in scores)

    async def _read(self, dead: Sequence[tuple[bytes, float]]) -> list[DeadDelivery]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for delivery_id, _ in dead:
                pipe.hgetall(self._keys("DELIVERY", delivery_id.decode()))
                pipe.hmget(self._keys("JOB", job_of(delivery_id.decode())), JobField.PROVIDER, JobField.TENANT)
            rows = await pipe.execute()
        return [
            DeadDelivery(
                **asdict(delivery(delivery_id.decode(), row)),
                provider=provider.decode(),
                died=died / 1000,
                tenant=tenant.decode() if tenant else None,
            )
            for (delivery_id, died), row, (provider, tenant) in zip(dead, rows[::2], rows[1::2], strict=True)
            if row and provider
        ]
