"""What was counted, over all workers and restarts: totals for /metrics, and a day of minutes for the pages' charts.

Scripts count what becomes of jobs as they decide it, so those counts are exact. What processes count themselves
(`outwait.worker.telemetry.tally`) is added every few seconds: a `kill -9` loses the last of it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from outwait.worker.model.counts import LATE_BOUNDS, Name
from outwait.worker.model.jobs import JobState
from outwait.worker.store.connection import Connection
from outwait.worker.store.reads import Reads

MINUTE_KEPT = 90_000
"""Seconds that a minute is kept: a day and an hour (prelude.lua has the same)."""

_ENDS = tuple(state for state in JobState if state.ended)
_GAUGES = ("queued", "waiting", "uncertain", "due", "dead", "held")
_FIELDS = (
    *(f"to:{state}" for state in _ENDS),
    "accepted",
    "to:waiting",
    "polls",
    *(f"now:{gauge}" for gauge in _GAUGES),
    *(f"late:{number}" for number in range(len(LATE_BOUNDS) + 1)),
)


class Minute(msgspec.Struct, frozen=True):
    """What happened in one minute, and how things stood in it. `at` is its begin, in seconds since 1970.

    `late` are the seconds within which 95 of 100 polls started, None if none did. The fields after it are None if no
    worker was there to look.
    """

    at: int
    ended: Mapping[JobState, int]
    accepted: int
    submitted: int
    polls: int
    late: float | None
    queued: int | None
    waiting: int | None
    uncertain: int | None
    due: int | None
    dead: int | None
    held: int | None


class Statistics:
    """The counts of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys
        self._reads = Reads(connection)

    async def add(self, counts: Mapping[Name, int]) -> None:
        """Add what a process has counted, all of it or nothing. Raises StoreUnavailable or StoreRefused."""
        async with self._connection.translated():
            minute = self._keys("STAT", str(await self._minute()))
            async with self._redis.pipeline() as pipe:
                for name, number in counts.items():
                    pipe.hincrby(self._keys("STATS"), ":".join(map(str, name)), number)
                for field, number in _charted(counts).items():
                    pipe.hincrby(minute, field, number)
                pipe.expire(minute, MINUTE_KEPT)
                await pipe.execute()

    async def sample(self) -> None:
        """Keep how things stand, if nobody has in this minute. Raises StoreUnavailable or StoreRefused."""
        async with self._connection.translated():
            minute = self._keys("STAT", str(await self._minute()))
            if not await self._redis.hsetnx(minute, "sampled", 1):
                return
        gauges = {f"now:{name}": number for name, number in (await self._gauges()).items()}
        async with self._connection.translated(), self._redis.pipeline() as pipe:
            pipe.hset(minute, mapping=gauges)
            pipe.expire(minute, MINUTE_KEPT)
            await pipe.execute()

    async def counted(self) -> dict[tuple[str, ...], int]:
        """Every count since the store began, by what is counted and its labels."""
        async with self._connection.translated():
            rows = await self._redis.hgetall(self._keys("STATS"))
        return {tuple(name.decode().split(":")): int(number) for name, number in rows.items()}

    async def held(self, providers: Iterable[str]) -> dict[str, int]:
        """How many uncertain jobs wait for a person, by provider."""
        names = list(providers)
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zcard(self._keys("DUE", "held", name))
            return dict(zip(names, await pipe.execute() if names else [], strict=True))

    async def dead(self) -> int:
        """How many deliveries were given up."""
        async with self._connection.translated():
            return int(await self._redis.zcard(self._keys("DEAD")))

    async def history(self, minutes: int) -> list[Minute]:
        """The last so many minutes (a day at most is kept), oldest first; the last one is not over yet."""
        async with self._connection.translated():
            last = await self._minute()
            wanted = range(last - minutes + 1, last + 1)
            async with self._redis.pipeline(transaction=False) as pipe:
                for minute in wanted:
                    pipe.hmget(self._keys("STAT", str(minute)), _FIELDS)
                rows = await pipe.execute()
        return [_read(minute, dict(zip(_FIELDS, row, strict=True))) for minute, row in zip(wanted, rows, strict=True)]

    async def _minute(self) -> int:
        second, _ = await self._redis.time()
        return int(second) // 60

    async def _gauges(self) -> dict[str, int]:
        counts, lanes, dead = await asyncio.gather(self._reads.counts(), self._reads.active_lanes(), self.dead())
        held, standing, backlog = await asyncio.gather(
            self.held(counts), self._reads.lanes(lanes), self._reads.backlog()
        )
        states = {
            state.value: sum(numbers[state] for numbers in counts.values()) for state in JobState if not state.ended
        }
        due = sum(lane.due_now for lane in (backlog, *standing))
        return states | {"due": due, "dead": dead, "held": sum(held.values())}


def _charted(taken: Mapping[Name, int]) -> dict[str, int]:
    """What of it the charts show: polls, and how late they started."""
    charted: dict[str, int] = defaultdict(int)
    for name, number in taken.items():
        match name:
            case ("requests", _, "polls", result, _) if result != "not_sent":
                charted["polls"] += number
            case ("late", "poll", _, bound):
                charted[f"late:{bound}"] += number
    return charted


def _read(minute: int, row: Mapping[str, bytes | None]) -> Minute:
    counts = [int(row[f"late:{number}"] or 0) for number in range(len(LATE_BOUNDS) + 1)]
    gauges = {name: None if row[f"now:{name}"] is None else int(row[f"now:{name}"] or 0) for name in _GAUGES}
    return Minute(
        at=minute * 60,
        ended={state: int(row[f"to:{state}"] or 0) for state in _ENDS},
        accepted=int(row["accepted"] or 0),
        submitted=int(row["to:waiting"] or 0),
        polls=int(row["polls"] or 0),
        late=quantile(LATE_BOUNDS, counts, 0.95),
        **gauges,
    )


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value that `share` of what was counted are under, as near as classes tell; None if nothing was counted.

    `counts` has one class more than `bounds`, which is above them all: for what is there the last bound is given.
    """
    left = share * sum(counts)
    if not left:
        return None
    low = 0.0
    for bound, number in zip(bounds, counts, strict=False):
        if left <= number:
            return low + (bound - low) * left / number
        left -= number
        low = bound
    return low
