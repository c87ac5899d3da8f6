"""The audit trail: what persons did. It has a bound and a retention of its own, apart from the timelines of jobs."""

from collections.abc import Sequence

import msgspec

from outwait.worker.model.acts import OF_TENANT, OPERATORS, Act, NewAct
from outwait.worker.model.times import milliseconds
from outwait.worker.store.connection import Connection

AT_ONCE = 500
"""Acts that are read in one round trip."""


class Audit:
    """The audit trail of one namespace, for one event loop. Scripts write it, together with what is done."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys
        self._retention_ms = milliseconds(connection.settings.store.audit_retention)

    async def write(self, act: NewAct) -> None:
        """Store an act that no other script stores. Raises StoreUnavailable or StoreRefused."""
        async with self._connection.translated():
            await self._connection.scripts.run("act", act=act, audit_ms=self._retention_ms)

    async def newest(
        self, limit: int = 50, *, tenant: str | None = None, job: str | None = None, until: float | None = None
    ) -> list[Act]:
        """The newest acts first.

        Args:
            limit: how many at most.
            tenant: only those of this tenant's keys, or to its jobs.
            job: only those to this job.
            until: only those before this time, in seconds since 1970: for the next page.
        """
        oldest = (await self._connection.now_ms() - self._retention_ms) / 1000
        acts: list[Act] = []
        for trail in await self._trails(tenant, job):
            acts += await self._read(trail, limit, oldest, tenant, until)
        return sorted(acts, key=lambda act: act.at, reverse=True)[:limit]

    async def _trails(self, tenant: str | None, job: str | None) -> list[str]:
        """The keys to look at."""
        if job is not None:
            return [self._keys("JOB_ACTS", job)]
        if tenant is not None:
            return [self._keys("ACTS", f"{OF_TENANT}{tenant}"), self._keys("ACTS", OPERATORS)]
        async with self._connection.translated():
            names = await self._redis.smembers(self._keys("TRAILS"))
        return [self._keys("ACTS", name.decode()) for name in names]

    async def _read(
        self, trail: str, limit: int, oldest: float, tenant: str | None, until: float | None
    ) -> Sequence[Act]:
        acts: list[Act] = []
        start, at_once = 0, min(AT_ONCE, max(limit, 50))
        while len(acts) < limit:
            async with self._connection.translated():
                rows = await self._redis.lrange(trail, start, start + at_once - 1)
            read = [act_of(row) for row in rows]
            acts += [
                act
                for act in read
                if act.at > oldest
                and (until is None or act.at < until)
                and tenant in {None, act.tenant, act.key_tenant}
            ]
            start += len(rows)
            if len(rows) < at_once or read[-1].at <= oldest:
                break
        return acts[:limit]


def act_of(row: bytes) -> Act:
    """An act as it is stored: milliseconds, the job, the job's tenant, and the rest as JSON."""
    at, job, tenant, record = row.split(b" ", 3)
    act = msgspec.json.decode(record, type=Act)
    return msgspec.structs.replace(act, at=int(at) / 1000, job=job.decode(), tenant=tenant.decode())
