"""Lists jobs, the newest first, page by page. Reads only."""

from collections.abc import Sequence
from heapq import merge
from itertools import product
from typing import NamedTuple, TypedDict, Unpack

from outwait.worker.model.jobs import Job, JobState
from outwait.worker.store.connection import Connection
from outwait.worker.store.cursors import JOB_CURSOR, Place, place_of
from outwait.worker.store.reads import Reads

ROUNDS = 20
"""Times that so many jobs as a page has are read for one page, where few of a tenant's jobs are wanted."""


class Filter(TypedDict, total=False):
    """Which jobs are wanted. Times are seconds since 1970 of when they were created."""

    state: JobState | None
    provider: str | None
    tenant: str | None
    since: float | None
    until: float | None


class Page(NamedTuple):
    """Jobs, newest first, and the cursor of the next page (None: no more). It may be short though more follow."""

    jobs: list[Job]
    cursor: str | None


class Listing:
    """The jobs of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys
        self._reads = Reads(connection)

    async def page(self, limit: int = 50, cursor: str | None = None, **wanted: Unpack[Filter]) -> Page:
        """The jobs that are wanted; none comes twice, and none is left out. Raises InvalidRequest for no cursor."""
        indexes = await self._indexes(wanted)
        jobs: list[Job] = []
        end, more = place_of(cursor, JOB_CURSOR) if cursor is not None else None, False
        for _ in range(ROUNDS):
            places = await self._after(indexes, end, wanted, limit + 1)
            known = {job.id: job for job in await self._reads.listed([place.id for place in places[:limit]])}
            for place in places[:limit]:
                end = place
                job = known.get(place.id)
                if job and _fits(job, wanted):
                    jobs.append(job)
                if len(jobs) == limit:
                    break
            more = bool(places) and end != places[-1]
            if len(jobs) == limit or not more:
                break
        return Page(jobs, end.cursor if more and end else None)

    async def _indexes(self, wanted: Filter) -> list[str]:
        tenant, state, provider = wanted.get("tenant"), wanted.get("state"), wanted.get("provider")
        if tenant:
            return [self._keys("TENANT", tenant)]
        providers = [provider] if provider else await self._reads.providers()
        return [self._keys("INDEX", *pair) for pair in product(providers, [state] if state else list(JobState))]

    async def _after(self, indexes: Sequence[str], end: Place | None, wanted: Filter, limit: int) -> list[Place]:
        """The next places after this one."""
        until, since = wanted.get("until"), wanted.get("since")
        top = end.at_ms if end else "+inf" if until is None else until * 1000
        low = "-inf" if since is None else since * 1000
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for index in indexes if end else ():
                pipe.zcount(index, top, top)  # jobs of the same millisecond: a batch has up to a thousand
            same = await pipe.execute() if indexes and end else [0] * len(indexes)
            for index, passed in zip(indexes, same, strict=True):
                pipe.zrevrangebyscore(index, top, low, start=0, num=limit + passed, withscores=True)
            runs = await pipe.execute() if indexes else []
        placed = ([Place(int(score), member.decode()) for member, score in run] for run in runs)
        return [place for place in merge(*placed, reverse=True) if end is None or place < end][:limit]


def _fits(job: Job, wanted: Filter) -> bool:
    state, provider = wanted.get("state"), wanted.get("provider")
    return state in {None, job.state} and provider in {None, job.provider}
