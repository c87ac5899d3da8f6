"""Shows the deliveries that were given up, page by page. Reads only."""

from collections.abc import AsyncIterator, Sequence

from msgspec.structs import asdict

from outwait.worker.model.jobs import Delivery, job_of
from outwait.worker.store.connection import Connection
from outwait.worker.store.cursors import DELIVERY_CURSOR, Place, place_of
from outwait.worker.store.fields import JobField
from outwait.worker.store.rows import delivery

PAGE = 200
"""Deliveries in one round trip."""


class DeadDelivery(Delivery, frozen=True):
    """A delivery that was given up: its job's provider and tenant, and when (seconds since 1970)."""

    provider: str = ""
    died: float = 0
    tenant: str | None = None

    @property
    def cursor(self) -> str:
        """The place of this delivery: the cursor of a page that ends with it."""
        return Place(round(self.died * 1000), self.id).cursor


class DeadLetters:
    """The dead deliveries of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys

    async def pages(self, since: float | None = None, cursor: str | None = None) -> AsyncIterator[list[DeadDelivery]]:
        """Those that are dead now and died since then (seconds since 1970), newest first, or those after a cursor.

        What is replayed between two pages makes none of the others be passed over; what dies meanwhile is not shown.
        Raises InvalidRequest for no cursor.
        """
        end = place_of(cursor, DELIVERY_CURSOR) if cursor is not None else None
        low = "-inf" if since is None else f"{since * 1000:.0f}"
        async with self._connection.translated():
            top = end.at_ms if end else await self._connection.now_ms()
            while places := await self._after(end, top, low):
                yield await self._read(places)
                end = places[-1]
                top = end.at_ms

    async def _after(self, end: Place | None, top: int, low: str) -> list[Place]:
        """The next places after this one."""
        key = self._keys("DEAD")
        same = await self._redis.zcount(key, top, top) if end else 0  # of the same millisecond
        rows = await self._redis.zrevrangebyscore(key, top, low, start=0, num=PAGE + same, withscores=True)
        places = [Place(int(died_ms), delivery_id.decode()) for delivery_id, died_ms in rows]
        return [place for place in places if end is None or place < end][:PAGE]

    async def _read(self, places: Sequence[Place]) -> list[DeadDelivery]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for _, delivery_id in places:
                pipe.hgetall(self._keys("DELIVERY", delivery_id))
                pipe.hmget(self._keys("JOB", job_of(delivery_id)), JobField.PROVIDER, JobField.TENANT)
            rows = await pipe.execute()
        return [
            DeadDelivery(
                **asdict(delivery(delivery_id, row)),
                provider=provider.decode(),
                died=died_ms / 1000,
                tenant=tenant.decode() if tenant else None,
            )
            for (died_ms, delivery_id), row, (provider, tenant) in zip(places, rows[::2], rows[1::2], strict=True)
            if row and provider
        ]
