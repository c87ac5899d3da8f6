"""Takes producers' messages out of their queue without losing one: leased first, gone only when they are jobs."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from outwait.config.reserved import CELERY_QUEUE
from outwait.worker.model.errors import StoreRefused
from outwait.worker.model.times import milliseconds
from outwait.worker.store.connection import Connection

REFUSED_KEPT = 1000
"""Messages without a usable id that are kept for a person to look at."""

PRIORITY_SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and a priority, for each priority but the first."""

PRIORITIES = range(1, 10)
"""Every one that a producer's `priority_steps` may name; kombu's own are 0, 3, 6 and 9, the most urgent first."""

_OURS = re.compile(rb'"task":\s*"tasks\.submit"')


BATCH_BYTES = 32 * 1024 * 1024
"""Bytes of messages after which no other is taken with them."""


class Taken(NamedTuple):
    """A message taken in.

    Args:
        name: in the leased set.
        body: as kombu wrote it; only its beginning if it is too large.
        at: when, in seconds since 1970.
        length: bytes of the whole message.
        takes: how often its lease has ended before.
    """

    name: str
    body: bytes
    at: float = 0.0
    length: int = 0
    takes: int = 0


class TakeLimits(NamedTuple):
    """What is taken at once: so many messages, of so many bytes each; of a larger one so many bytes are kept."""

    messages: int
    message_max: int
    kept: int


class Batch(NamedTuple):
    """Messages taken in, and whether more may wait."""

    messages: Sequence[Taken]
    more: bool


class Parked(msgspec.Struct, frozen=True):
    """A message that can be no job: when (seconds since 1970), why, and its text, shortened."""

    at: float
    reason: str
    message: str


class Inbox:
    """Producers' queue of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lease_ms = milliseconds(connection.settings.intake.lease)

    async def take(self, queues: Sequence[str], limits: TakeLimits, harmless: Sequence[str] = ()) -> Batch:
        """Lease messages. One whose lease ended comes again, by itself: it may have killed its worker.

        Args:
            queues: the lists, the most urgent first.
            limits: how much is taken.
            harmless: messages that this worker could read, but not record; their lost leases no longer count.
        """
        async with self._connection.translated():
            answer = await self._connection.scripts.run(
                "take_in",
                keys=queues,
                limit=limits.messages,
                message_max=limits.message_max,
                kept=limits.kept,
                room=BATCH_BYTES,
                lease_ms=self._lease_ms,
                harmless=harmless,
            )
        now, more, *flat = answer
        at = int(now) / 1000
        rows = zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
        return Batch([Taken(name.decode(), body, at, length, takes) for name, body, length, takes in rows], bool(more))

    async def now(self) -> float:
        """Seconds since 1970 by Redis's clock."""
        async with self._connection.translated():
            second, micro = await self._connection.redis.time()
        return float(second + micro / 1e6)

    async def park(self, name: str, reason: str, message: str) -> None:
        """Put a message aside that can be no job: its name in the leased set, why, and its text without secrets."""
        async with self._connection.translated():
            second, _ = await self._connection.redis.time()
            parked = msgspec.json.encode(Parked(second, reason, message)).decode()
            await self._connection.scripts.run("park", promised=True, message=name, parked=parked, limit=REFUSED_KEPT)

    async def parked(self, limit: int = 50) -> list[Parked]:
        """Messages put aside, newest first."""
        key = self._connection.keys("IN_REFUSED")
        async with self._connection.translated():
            rows = await self._connection.redis.lrange(key, 0, limit - 1)
        return [msgspec.json.decode(row, type=Parked) for row in rows]

    async def strays(self) -> int:
        """Jobs among the newest messages of Celery's default queue (those of its protocol 2, which show their task)."""
        try:
            async with self._connection.translated():
                bodies = await self._connection.redis.lrange(CELERY_QUEUE, 0, 199)
        except StoreRefused:
            return 0  # it is no list: `Health.key_types` says so
        return sum(bool(_OURS.search(body)) for body in bodies)

    async def waiting(self, queues: Sequence[str]) -> list[int]:
        """Messages that nobody has taken yet, queue by queue."""
        async with self._connection.translated(), self._connection.redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.llen(queue)
            return [int(number) for number in await pipe.execute()]


def lists_of(queue: str) -> list[str]:
    """The Redis lists that a queue of Celery's is made of, the most urgent first."""
    return [queue, *(f"{queue}{PRIORITY_SEPARATOR}{step}" for step in PRIORITIES)]
