"""Polls come when jobs usually end: what the store learns, what a worker makes of it, and ids that expire."""

import asyncio
import time
from pathlib import Path
from statistics import median

import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import JobError, JobRequest, JobState
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_FENCE, End, Retry, Submitted, Wait
from outwait.worker.store import codec
from outwait.worker.store.connection import Connection
from outwait.worker.store.durations import Durations
from outwait.worker.store.fields import JobField
from outwait.worker.store.lanes import LanePolicy, Lanes, NewJob
from tests.patience import PATIENCE
from tests.stack import Stack, ended, query, until

POLL = Lane.parse("poll:unless")
POLICY = LanePolicy(batch=300, lease_ms=60_000, cap=300)
SPEC = codec.blob(b'{"params":{},"targets":[],"metadata":{}}', 100)
RESULT = codec.blob(b"1", 1000)


@pytest.fixture
def lanes(connection: Connection) -> Lanes:
    return Lanes(connection)


async def learnt(connection: Connection) -> tuple[float, ...]:
    durations = Durations(connection)
    assert durations.of("unless", "query") == (), "nothing waits for Redis"
    await durations.read()
    return durations.of("unless", "query")


async def submitted(lanes: Lanes, connection: Connection, *took: int) -> list[str]:
    """Jobs whose submit was this many milliseconds ago."""
    ids = [f"j{n}" for n in range(len(took))]
    await lanes.enqueue(
        [NewJob(id=job_id, provider="unless", operation="query", digest="d", spec=SPEC) for job_id in ids]
    )
    await lanes.record(
        [
            Submitted(work_id=job_id, fence=NO_FENCE, external_id=f"x-{job_id}", countdown_ms=0, submits=1)
            for job_id in ids
        ]
    )
    for job_id, ago in zip(ids, took, strict=True):
        await connection.redis.hincrby(connection.keys("JOB", job_id), JobField.SUBMITTED, -ago)
    return ids


async def test_a_polled_job_counts_to_the_middle_of_the_interval_in_which_it_ended(
    lanes: Lanes, connection: Connection
) -> None:
    first, later, posted = await submitted(lanes, connection, 8_000_000, 8_000_000, 8_000_000)
    await lanes.record(
        [
            Wait(work_id=later, fence=NO_FENCE, countdown_ms=0, status="PENDING", polls=1),
            Wait(work_id=posted, fence=NO_FENCE, countdown_ms=0, status="PENDING", polls=1),
        ]
    )
    for job_id in (later, posted):
        await connection.redis.hincrby(connection.keys("JOB", job_id), JobField.LAST_POLL, -2_000_000)
    claims = {claim.work_id: claim for claim in await lanes.claim(POLL, POLICY)}
    assert claims[first].polled_ms == 0
    assert claims[later].polled_ms - claims[later].submitted_ms == pytest.approx(6_000_000, abs=PATIENCE * 1000)
    ends = [
        End(work_id=job_id, fence=claims[job_id].fence, state=JobState.SUCCEEDED, result=RESULT)
        for job_id in (first, later)
    ]
    await lanes.record([*ends, End(work_id=posted, fence=NO_FENCE, state=JobState.SUCCEEDED, result=RESULT)])
    assert await learnt(connection) == pytest.approx((4_000, 7_000, 8_000), abs=PATIENCE)


async def test_only_what_succeeded_is_learnt_from_and_only_the_last_two_hundred(
    lanes: Lanes, connection: Connection
) -> None:
    ids = await submitted(lanes, connection, 1_000_000, 2_000_000, *(3_000_000 for _ in range(200)))
    await lanes.record([End(work_id=ids[0], fence=NO_FENCE, state=JobState.FAILED, error=JobError("x", "y").text())])
    await lanes.record(
        [End(work_id=job_id, fence=NO_FENCE, state=JobState.SUCCEEDED, result=RESULT) for job_id in ids[1:]]
    )
    assert await learnt(connection) == pytest.approx((3_000,) * 200, abs=PATIENCE)


async def test_a_failed_poll_says_nothing_of_the_job(lanes: Lanes, connection: Connection) -> None:
    await submitted(lanes, connection, 1_000)
    (claim,) = await lanes.claim(POLL, POLICY)
    await lanes.record([Retry(work_id=claim.work_id, fence=claim.fence, countdown_ms=0, reason="503", attempt=1)])
    (claim,) = await lanes.claim(POLL, POLICY)
    assert claim.polled_ms == 0


async def polls(client: StoreClient, jobs: int) -> list[int]:
    """Polls of each of so many jobs, run together."""
    ids = [(await client.enqueue(query(f"{n}"))).job_id for n in range(jobs)]
    ends = await asyncio.gather(*(ended(client, job_id) for job_id in ids))
    assert {job.state for job in ends} == {JobState.SUCCEEDED}
    return [job.ledger.polls for job in ends]


async def test_once_learnt_a_job_needs_few_polls(redis_url: str, tmp_path: Path) -> None:
    options = {"behaviour": {"duration": 10, "jitter": 0}}
    with Stack(redis_url, tmp_path, options=options) as stack:
        async with stack.client() as client:
            worker = stack.worker()
            before = await polls(client, 30)
            assert min(before) >= 6
            worker.terminate()
            worker.wait(PATIENCE)
            stack.worker()  # what was learnt is in Redis
            await polls(client, 1)  # its first job makes it read
            after = await polls(client, 30)
            assert median(after) <= median(before) / 2
        assert {job["polls"]["too_fast"] for job in stack.ledger()["jobs"]} == {0}


async def test_switched_off_the_interval_alone_counts(redis_url: str, tmp_path: Path) -> None:
    options = {"behaviour": {"duration": 10, "jitter": 0}}
    variables = {"OUTWAIT_POLL__ADAPTIVE": "false"}
    with Stack(redis_url, tmp_path, options=options, variables=variables) as stack:
        async with stack.client() as client:
            stack.worker()
            await polls(client, 25)
            assert min(await polls(client, 5)) >= 6


async def test_a_retry_after_on_any_answer_is_obeyed(redis_url: str, tmp_path: Path) -> None:
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0}}) as stack:
        async with stack.client() as client:
            stack.worker()
            marker = '{"faults":[{"fault":"error","on":"poll","seconds":2}]}'
            job_id = (await client.enqueue(query(f"later sandbox:{marker}"))).job_id
            assert (await ended(client, job_id)).state is JobState.SUCCEEDED
            (seen,) = stack.seen("later")
    assert seen["polls"]["count"] == 2
    assert seen["polls"]["shortest_interval"] >= 2


async def test_a_job_expires_when_its_provider_said_that_its_id_does(redis_url: str, tmp_path: Path) -> None:
    params = {"contentUri": "https://a.example/1.wav", "encoding": "Wav", "languageCode": "en-US"}
    request = JobRequest(provider="ringcentral", operation="speech-to-text", params=params)
    options = {"behaviour": {"outcome": "never", "expiry": 5}}
    with Stack(redis_url, tmp_path, options=options) as stack:
        stack.worker()
        async with stack.client() as client:
            job = await ended(client, (await client.enqueue(request)).job_id)
    assert job.state is JobState.EXPIRED
    assert job.error is not None
    assert job.error.message.startswith("the provider's id expired")


async def test_an_external_id_that_nears_its_end_is_warned_of_once_and_then_the_job_expires(
    redis_url: str, tmp_path: Path
) -> None:
    params = {"languageTag": "en-us", "vertical": "default", "downloadUri": "https://a.example/1.wav"}
    request = JobRequest(provider="elevateai", operation="audio", params=params)
    day = 86_400_000
    with Stack(redis_url, tmp_path, options={"behaviour": {"outcome": "never"}}) as stack:
        async with stack.client() as client:
            stack.worker()
            job_id = (await client.enqueue(request)).job_id
            connection = Connection(stack.settings)
            key = connection.keys("JOB", job_id)

            async def polled(more: int = 1) -> bool:
                return int(await connection.redis.hget(key, "np") or 0) >= more

            async def warned() -> list[str]:
                return [entry.detail for entry in await client.timeline(job_id) if entry.event == "warning"]

            await until(polled)
            assert await warned() == []
            # As if it had been submitted so long ago that a second from now a tenth of the id's 45 days is left.
            await connection.redis.hset(key, JobField.SUBMITTED, int(time.time() * 1000 + 1000 - 40.5 * day))
            (warning,) = await until(warned)
            assert warning.startswith("the provider's id expires in 388")
            so_far = int(await connection.redis.hget(key, "np"))
            await until(lambda: polled(so_far + 3))
            assert len(await warned()) == 1
            await connection.redis.hincrby(key, JobField.SUBMITTED, -5 * day)
            job = await ended(client, job_id)
            await connection.close()
    assert job.state is JobState.EXPIRED
    assert job.error is not None
    assert "id expired" in job.error.message
