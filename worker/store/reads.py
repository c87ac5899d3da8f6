"""Shows jobs: their states, requests, results, timelines and deliveries. Reads only."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from outwait.worker.model.errors import JobNotFound
from outwait.worker.model.jobs import Claim, Delivery, Job, JobState, TimelineEntry
from outwait.worker.model.lanes import BACKLOG, Lane
from outwait.worker.store import codec, rows, timeline
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField

LANES_SHOWN = 500
"""Lanes that are read to be shown or counted, those first that must be looked at first."""


class LaneStatus(NamedTuple):
    """What stands in one lane. `oldest_due_age` is seconds, 0 if nothing is late."""

    lane: Lane
    due_now: int
    waiting: int
    leased: int
    oldest_due_age: float


class Spec(msgspec.Struct, frozen=True):
    """What a step reads of a request. Metadata is not decoded: a batch of jobs may have 64 MB of it."""

    params: dict[str, Any] = {}
    targets: tuple[str, ...] = ()


_decode_spec = msgspec.json.Decoder(Spec).decode


class Reads:
    """The jobs of one namespace, for one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis
        self._keys = connection.keys

    async def resolve(self, job_id: str) -> str:
        """The job that this id means: itself, or the one that its idempotency key led to."""
        async with self._connection.translated():
            alias = await self._redis.get(self._keys("ALIAS", job_id))
        return alias.decode() if alias else job_id

    async def of_key(self, key: str, tenant: str | None = None) -> str | None:
        """The id of the job with this idempotency key; each tenant has keys of its own."""
        name = self._keys("TENANT_KEY", f"{tenant}/{key}") if tenant else self._keys("IDEMPOTENCY", key)
        async with self._connection.translated():
            job_id = await self._redis.get(name)
        return job_id.decode() if job_id else None

    async def belongs(self, job_id: str, tenant: str) -> bool:
        """Whether there is such a job and it is this tenant's. What Redis does is the same if it is not, and why."""
        name = await self.resolve(job_id)
        async with self._connection.translated():
            owner = await self._redis.hget(self._keys("JOB", name), JobField.TENANT)
        return bool(owner == tenant.encode())

    async def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        jobs = await self.jobs([await self.resolve(job_id)])
        if not jobs:
            raise JobNotFound(f"no job has the id {job_id!r}, or it was purged after its retention")
        return jobs[0]

    async def tenant(self, job_id: str) -> str:
        """The tenant of a job; empty if it has none."""
        async with self._connection.translated():
            tenant = await self._redis.hget(self._keys("JOB", job_id), JobField.TENANT)
        return tenant.decode() if tenant else ""

    async def specs(self, job_ids: Sequence[str]) -> list[Spec | None]:
        """What was asked for, job by job."""
        async with self._connection.translated():
            blobs = await self._redis.mget([self._keys("SPEC", job_id) for job_id in job_ids])
        return [None if blob is None else _decode_spec(codec.inflate(blob)) for blob in blobs]

    async def without_spec(self, claims: Sequence[Claim]) -> frozenset[str]:
        """The ids of the claimed jobs whose request is lost: this Redis has the job under this claim, and no request.

        Another one, that has become the master or is one no more, knows neither.
        """
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for claim in claims:
                pipe.hget(self._keys("JOB", claim.work_id), JobField.FENCE)
                pipe.exists(self._keys("SPEC", claim.work_id))
            replies = await pipe.execute()
        found = zip(claims, replies[::2], replies[1::2], strict=True)
        return frozenset(claim.work_id for claim, fence, spec in found if int(fence or -1) == claim.fence and not spec)

    async def result(self, job_id: str) -> Any:
        """The result as JSON data, None where there is none."""
        async with self._connection.translated():
            blob = await self._redis.get(self._keys("RESULT", job_id))
        return None if blob is None else codec.decode(blob)

    async def result_texts(self, job_ids: Sequence[str]) -> list[bytes]:
        """The results as JSON texts, job by job; `null` where there is none."""
        async with self._connection.translated():
            blobs = await self._redis.mget([self._keys("RESULT", job_id) for job_id in job_ids])
        return [b"null" if blob is None else codec.inflate(blob) for blob in blobs]

    async def timeline(self, job_id: str) -> list[TimelineEntry]:
        """What happened to a job, oldest first."""
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.lrange(self._keys("TIMELINE", job_id), 0, -1)
            pipe.hget(self._keys("JOB", job_id), JobField.CONFLICTS)
            lines, conflicts = await pipe.execute()
        entries = [timeline.entry(line.decode(errors="replace")) for line in lines]  # they are cut by bytes
        return timeline.counted(entries, int(conflicts or 0))

    async def aliases(self, job_ids: Sequence[str]) -> list[set[str]]:
        """The other ids that mean these jobs."""
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.smembers(self._keys("ALIASES", job_id))
            return [{alias.decode() for alias in aliases} for aliases in await pipe.execute()]

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """The deliveries of a job."""
        async with self._connection.translated():
            made = int(await self._redis.hget(self._keys("JOB", job_id), JobField.DELIVERIES) or 0)
        return await self._deliveries([f"{job_id}#{n}" for n in range(1, made + 1)])

    async def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs stand in each state, by provider."""
        providers = await self.providers()
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for name in providers:
                for state in JobState:
                    pipe.zcard(self._keys("INDEX", name, state))
            numbers = iter(await pipe.execute() if providers else [])
        return {name: {state.value: next(numbers) for state in JobState} for name in providers}

    async def lanes(self, lanes: Iterable[Lane]) -> list[LaneStatus]:
        """What stands in these lanes."""
        wanted = list(lanes)
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for lane in wanted:
                pipe.zcard(self._keys("DUE", str(lane)))
                pipe.zcard(self._keys("LEASED", str(lane)))
                pipe.zrange(self._keys("DUE", str(lane)), 0, 0, withscores=True)
            (second, micro), *replies = await pipe.execute()
            now = second * 1000 + micro // 1000
            for lane, first in zip(wanted, replies[2::3], strict=True):
                pipe.zcount(self._keys("DUE", str(lane)), "-inf", now)
                first_job = self._keys("JOB", first[0][0].decode() if first else "")
                pipe.hmget(first_job, JobField.DUE, JobField.CREATED)
            due = await pipe.execute() if wanted else []
        return [
            LaneStatus(
                lane, due[2 * i], replies[3 * i], replies[3 * i + 1], _age(replies[3 * i + 2], due[2 * i + 1], now)
            )
            for i, lane in enumerate(wanted)
        ]

    async def active_lanes(self) -> list[Lane]:
        """Lanes in which something stands, at most `LANES_SHOWN`."""
        async with self._connection.translated():
            names = await self._redis.zrange(self._keys("LANES"), 0, LANES_SHOWN - 1)
        return [Lane.parse(lane.decode()) for lane in names]

    async def backlog(self) -> LaneStatus:
        """The deliveries that wait for their retry, or for their tenant's turn, as if they stood in one lane."""
        key = self._keys("BACKLOG_ALL")
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            now = await self._connection.now_ms()
            pipe.zcount(key, "-inf", now)
            pipe.zcard(key)
            pipe.zrange(key, 0, 0, withscores=True)
            due, waiting, first = await pipe.execute()
        return LaneStatus(BACKLOG, due, waiting, 0, max(0.0, (now - first[0][1]) / 1000) if first else 0.0)

    async def providers(self) -> list[str]:
        """Providers that have jobs."""
        async with self._connection.translated():
            return sorted(name.decode() for name in await self._redis.smembers(self._keys("PROVIDERS")))

    async def jobs(self, ids: Sequence[str]) -> list[Job]:
        """The jobs that exist among these ids."""
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(self._keys("JOB", job_id))
                pipe.get(self._keys("SPEC", job_id))
                pipe.get(self._keys("ERROR", job_id))
            read = await pipe.execute() if ids else []
            stored = [
                (job_id, rows.texts(row), rows.shown(spec), codec.decode_error(error) if error else None)
                for job_id, row, spec, error in zip(ids, read[::3], read[1::3], read[2::3], strict=True)
                if row
            ]
            for job_id, fields, _, _ in stored:
                pipe.zscore(self._keys("DUE", fields.get(JobField.LANE, "")), job_id)
            due = await pipe.execute() if stored else []
        return [rows.job(*parts, score) for parts, score in zip(stored, due, strict=True)]

    async def listed(self, ids: Sequence[str]) -> list[Job]:
        """The same for a list, which takes little memory: large requests are not read, and their jobs are abridged."""
        limit = rows.LISTED_MAX
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(self._keys("JOB", job_id))
                pipe.strlen(self._keys("SPEC", job_id))
                pipe.getrange(self._keys("ERROR", job_id), 0, limit)
            read = await pipe.execute() if ids else []
            stored = [
                (job_id, rows.texts(row), size <= limit, rows.brief_error(error))
                for job_id, row, size, error in zip(ids, read[::3], read[1::3], read[2::3], strict=True)
                if row
            ]
            for job_id, fields, is_small, _ in stored:
                pipe.zscore(self._keys("DUE", fields.get(JobField.LANE, "")), job_id)
                pipe.getrange(self._keys("SPEC", job_id), 0, limit - 1 if is_small else 0)
            more = await pipe.execute() if stored else []
        return [
            rows.job(job_id, fields, rows.shown_within(spec) if is_small else None, error, score)
            for (job_id, fields, is_small, error), score, spec in zip(stored, more[::2], more[1::2], strict=True)
        ]

    async def _deliveries(self, ids: Sequence[str]) -> list[Delivery]:
        if not ids:
            return []
        async with self._connection.translated(), self._redis.pipeline(transaction=False) as pipe:
            for delivery_id in ids:
                pipe.hgetall(self._keys("DELIVERY", delivery_id))
            replies = await pipe.execute()
        return [rows.delivery(delivery_id, row) for delivery_id, row in zip(ids, replies, strict=True) if row]


def _age(first: Sequence[tuple[bytes, float]], times: Sequence[bytes | None], now: int) -> float:
    """Seconds for which the first job is late; `times`: when a job in a line was due, or else created."""
    if not first:
        return 0.0
    since = first[0][1] if first[0][1] >= rows.FIRST_TIME else int(next(filter(None, times), now))
    return max(0.0, (now - since) / 1000)
