"""No tenant takes all of the store: what its jobs take has limits, and others enqueue on.

In release 0.2.0, 55 requests of one tenant filled 150 MB, and then everybody's enqueue was answered with 503.
"""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery

from outwait.client.http import HttpClient
from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.intake import Intake
from outwait.worker.engine.messages import Sent
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.errors import OutwaitError, QuotaExceeded, StorageExceeded, StoreUnavailable
from outwait.worker.model.jobs import JobError, JobState
from outwait.worker.model.lanes import CALLBACK
from outwait.worker.model.outcomes import NO_FENCE, End, Fanout
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField, UseField
from outwait.worker.store.lanes import LanePolicy, Lanes
from outwait.worker.store.provider_webhooks import Webhook
from outwait.worker.store.store import Store
from tests.stack import Stack, ended, query, until

MEBIBYTE = 1024 * 1024
MAXMEMORY = 48 * MEBIBYTE
BATCHES = [(560_000, 5)] * 20 + [(30_000, 10)] * 10 + [(500, 1000)] * 2
"""Bytes and jobs of each of the attacker's requests."""

POLICY = LanePolicy(batch=100, lease_ms=60_000, cap=100)
RESULT = codec.plain(b'"' + b"x" * 5000 + b'"')


GONE = JobError("gone", "for a test").text()


def noise(size: int) -> dict[str, Any]:
    """Metadata that cannot be compressed to less."""
    return {"noise": base64.b85encode(os.urandom(size)).decode()}


def limited(settings: Settings, **quotas: Any) -> Settings:
    return settings.model_copy(update={"tenants": settings.tenants.model_copy(update=quotas)})


async def use(connection: Connection, tenant: str = "a") -> tuple[int, int]:
    """Open jobs and bytes that are counted."""
    counts = await connection.redis.hmget(connection.keys("USE", tenant), UseField.OPEN_JOBS, UseField.BYTES)
    return int(counts[0] or 0), int(counts[1] or 0)


async def stored(connection: Connection, tenant: str = "a") -> tuple[int, int]:
    """Open jobs and bytes that are there."""
    redis, keys = connection.redis, connection.keys
    open_jobs = size = 0
    for job_id in [name.decode() for name in await redis.zrange(keys("TENANT", tenant), 0, -1)]:
        state = JobState((await redis.hget(keys("JOB", job_id), JobField.STATE)).decode())
        open_jobs += not state.ended
        size += sum(len(entry.partition(b" ")[2]) for entry in await redis.lrange(keys("WEBHOOKS", job_id), 0, -1))
        size += 1024 + await redis.strlen(keys("SPEC", job_id)) + await redis.strlen(keys("RESULT", job_id))
    return open_jobs, size


@pytest.fixture
async def few(settings: Settings) -> AsyncIterator[StoreClient]:
    """A tenant may have two open jobs."""
    async with StoreClient(limited(settings, open_jobs=2)) as client:
        yield client


async def test_one_tenant_does_not_fill_the_store_of_all(tmp_path: Path) -> None:
    """Protected by worker/store/lua/enqueue.lua `exceeded`, with the default settings."""
    with (
        EmbeddedRedis(tmp_path) as server,
        Stack(server.url, tmp_path, options={"behaviour": {"duration": 0}}) as stack,
    ):
        stack.web()
        stack.worker()
        connection = Connection(stack.settings)
        await connection.redis.config_set("maxmemory", MAXMEMORY)
        keys = [await Access(connection).create(name, list(Scope), name) for name in ("attacker", "victim")]
        attacker, victim = (HttpClient(stack.web_url, key.text) for key in keys)
        refusals: list[Any] = []
        for size, count in BATCHES:
            jobs = [(query('x sandbox:{"outcome":"never"}', metadata=noise(size)), None) for _ in range(count)]
            try:
                refusals += [answer for answer in await attacker.enqueue_many(jobs) if isinstance(answer, OutwaitError)]
            except StoreUnavailable as error:
                refusals.append(error)
        job_id = (await victim.enqueue(query("mine", metadata=noise(20_000)))).job_id
        async with stack.client() as client:
            assert (await ended(client, job_id)).state is JobState.SUCCEEDED
        assert refusals
        assert {type(error) for error in refusals} == {StorageExceeded}
        assert "OUTWAIT_TENANTS__MEMORY_SHARE" in str(refusals[0])
        open_jobs, size = await use(connection, "attacker")
        assert open_jobs + len(refusals) == sum(count for _, count in BATCHES)
        assert 0.2 * MAXMEMORY < size <= 0.25 * MAXMEMORY
        await attacker.close()
        await victim.close()
        await connection.close()


async def test_over_http_a_refusal_says_what_to_do_and_when(redis_url: str, tmp_path: Path) -> None:
    variables = {"OUTWAIT_TENANTS__OPEN_JOBS": "1"}
    with Stack(redis_url, tmp_path, variables=variables) as stack:
        stack.web()
        connection = Connection(stack.settings)
        key = await Access(connection).create("a", list(Scope), "a")
        await connection.close()
        request = {"provider": "unless", "operation": "query", "params": query().params}
        headers = {"Authorization": f"Bearer {key.text}"}
        async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=60) as http:
            assert (await http.post("/v1/jobs", json=request)).status_code == 201
            refused = await http.post("/v1/jobs", json=request)
            assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
            assert refused.headers["retry-after"] == "10"
            assert "OUTWAIT_TENANTS__OPEN_JOBS" in refused.json()["detail"]
            batch = (await http.post("/v1/jobs", json={"jobs": [request, request]})).json()
            assert [item["status"] for item in batch["jobs"]] == [429, 429]


async def test_open_jobs_are_counted_until_they_end(few: StoreClient, connection: Connection) -> None:
    lanes = Lanes(connection)
    first = (await few.enqueue(query("1", tenant="a", idempotency_key="k"))).job_id
    second = (await few.enqueue(query("2", tenant="a"))).job_id
    with pytest.raises(QuotaExceeded, match="tenant 'a' has 2 open jobs") as refused:
        await few.enqueue(query("3", tenant="a"))
    assert refused.value.retry_after
    assert (await few.enqueue(query("1", tenant="a", idempotency_key="k"))).job_id == first  # the same job
    await few.enqueue(query("3", tenant="b"))
    await few.enqueue(query("3"))
    await few.cancel(first)
    await few.enqueue(query("3", tenant="a"))
    await lanes.record([End(work_id=second, fence=NO_FENCE, state="succeeded", result=RESULT)])
    assert await use(connection) == await stored(connection)
    await few.enqueue(query("4", tenant="a"))
    with pytest.raises(QuotaExceeded):
        await few.enqueue(query("5", tenant="a"))


async def test_jobs_of_a_minute_are_limited(settings: Settings) -> None:
    async with StoreClient(limited(settings, jobs_per_minute=3)) as client:
        answers = await client.enqueue_many([(query(str(number), tenant="a"), None) for number in range(10)])
        refused = [answer for answer in answers if isinstance(answer, QuotaExceeded)]
        assert len(refused) == 7
        assert all(0 < (answer.retry_after or 0) <= 60 for answer in refused)


async def test_bytes_count_results_too(settings: Settings, connection: Connection) -> None:
    async with StoreClient(limited(settings, bytes=6000)) as client:
        job_id = (await client.enqueue(query("1", tenant="a"))).job_id
        await Lanes(connection).record([End(work_id=job_id, fence=NO_FENCE, state="succeeded", result=RESULT)])
        with pytest.raises(StorageExceeded, match="more than 6000 bytes") as refused:
            await client.enqueue(query("2", tenant="a"))
        assert refused.value.retry_after is None


async def test_counts_are_exact_from_the_enqueue_to_the_purge(settings: Settings) -> None:
    """Also if an outcome comes twice, if a person takes a job up again, and if a job is purged."""
    brief = settings.model_copy(update={"store": settings.store.model_copy(update={"retention": 0.001})})
    connection = Connection(brief)
    lanes = Lanes(connection)
    async with StoreClient(brief) as client:
        for name in ("one", "two"):
            await client.enqueue(query(name, tenant="a"), job_id=name)
            await client.enqueue(query(name, tenant="a"), job_id=name)
        end = End(work_id="one", fence=NO_FENCE, state="failed", error=GONE, external_id="x")
        await lanes.record([end, end])
        assert await use(connection) == await stored(connection)
        await client.repoll("one")
        assert await use(connection) == await stored(connection) == (2, (await stored(connection))[1])
        bodies = [os.urandom(3000) for _ in range(25)]
        received = [client.webhooks.webhook_received(Webhook("unless", "one", body, len(body), "")) for body in bodies]
        await lanes.record(received)
        assert await use(connection) == await stored(connection)
        assert (await use(connection))[1] > 20 * 3000
        ends = [End(work_id=name, fence=NO_FENCE, state="succeeded", result=RESULT) for name in ("one", "two")]
        await lanes.record([*ends, *ends])
        assert await use(connection) == await stored(connection)
        claims = await lanes.claim(CALLBACK, POLICY)
        await lanes.record([Fanout(work_id=claim.work_id, fence=claim.fence, targets=()) for claim in claims])
        purged = 0

        async def both() -> bool:
            nonlocal purged
            purged += await lanes.purge()
            return purged == 2

        await until(both)
        assert await connection.redis.exists(connection.keys("USE", "a")) == 0
    await connection.close()


async def test_jobs_of_a_release_before_are_counted(settings: Settings, connection: Connection) -> None:
    """Protected by worker/store/lua/catch_up.lua. They carry no counts; one that is counted is not counted twice."""
    redis, keys, lanes = connection.redis, connection.keys, Lanes(connection)
    async with StoreClient(settings) as client:
        for number in range(700):
            await client.enqueue(query(str(number), tenant="a"), job_id=f"old-{number}")
        await lanes.record([End(work_id="old-0", fence=NO_FENCE, state="succeeded", result=RESULT)])
        for number in range(700):
            await redis.hdel(keys("JOB", f"old-{number}"), JobField.COUNTED_BYTES, JobField.COUNTED_OPEN)
        await redis.delete(keys("USE", "a"))
        await client.enqueue(query("new", tenant="a"))
        await lanes.record([End(work_id="old-1", fence=NO_FENCE, state="failed", error=GONE)])
        while await lanes.catch_up():
            pass
        assert await use(connection) == await stored(connection)
        assert (await use(connection))[0] == 699


async def test_a_message_over_a_quota_is_a_failed_job(settings: Settings, connection: Connection) -> None:
    """It is not lost, and waits for nothing: its producer reads why."""
    strict = limited(settings, open_jobs=1)
    store = Store.open(strict)
    acceptance = Acceptance(build(strict.providers), strict)
    intake = Intake(
        store.lanes, store.inbox, acceptance, FlowerEvents(Celery(), "nobody", enabled=False), None, strict.intake
    )
    request = {"provider": "unless", "operation": "query", "params": query().params, "tenant": "a"}
    for name in ("m-1", "m-2"):
        await intake.accept(Sent(name, request))
    async with StoreClient(strict) as client:
        assert (await client.job("m-1")).state is JobState.QUEUED
        refused = await client.job("m-2")
        assert refused.state is JobState.FAILED
        assert refused.error is not None
        assert refused.error.code == "quota_exceeded"
    await store.close()
