"""What becomes of an outcome that Redis can never write: a visible end with the external id, and nobody else waits."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from outwait.config.settings import Settings
from outwait.worker.engine import recorder as recording
from outwait.worker.engine.recorder import Recorder
from outwait.worker.engine.unwritable import CODE
from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import End, Release, Submitted, Wait
from outwait.worker.store import codec
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Held, LanePolicy, NewJob
from outwait.worker.store.store import Store

POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100)
SUBMIT, POLL = Lane.parse("submit:unless"), Lane.parse("poll:unless")
SPEC = codec.blob(b"{}", 1000)
MEGABYTE = 1024 * 1024


@pytest.fixture
async def small(connection: Connection) -> AsyncIterator[None]:
    """Redis takes no argument above a megabyte."""
    redis: Redis = connection.redis
    before = (await redis.config_get("proto-max-bulk-len"))["proto-max-bulk-len"]
    await redis.config_set("proto-max-bulk-len", MEGABYTE)
    yield
    await redis.config_set("proto-max-bulk-len", before)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with Store.open(settings) as opened:
        yield opened


async def running(store: Store, lane: Lane) -> list[Claim]:
    """Everything that is due in a lane, begun: claims with the fences of their outcomes."""
    claims = await store.lanes.claim(lane, POLICY)
    held = [Held(claim.work_id, claim.fence) for claim in claims]
    _, fences = await store.lanes.begin(lane, POLICY, held)
    return [
        Claim(work_id=claim.work_id, fence=fence, provider=claim.provider, external_id=claim.external_id)
        for claim, fence in zip(claims, fences, strict=True)
    ]


async def submitting(store: Store, *names: str) -> list[Claim]:
    jobs = [NewJob(id=name, provider="unless", operation="query", digest="d", spec=SPEC) for name in names]
    await store.lanes.enqueue(jobs)
    claims = await running(store, SUBMIT)
    await store.lanes.renew(SUBMIT, POLICY, [Held(claim.work_id, claim.fence) for claim in claims], intent=True)
    return claims


def submitted(claim: Claim, memo: str = "") -> Submitted:
    return Submitted(
        work_id=claim.work_id, fence=claim.fence, external_id=f"x-{claim.work_id}", memo=memo, countdown_ms=0, submits=1
    )


@pytest.mark.usefixtures("small")
async def test_a_submits_answer_that_is_too_large_ends_its_job_with_the_external_id(store: Store) -> None:
    claims = await submitting(store, "a", "b", "c")
    recorder = Recorder(store.lanes, lambda _: None)
    for claim in claims:
        recorder.add(submitted(claim, memo="m" * 2 * MEGABYTE if claim.work_id == "b" else ""), claim=claim)
    await recorder.flushed()
    states = {name: await store.reads.job(name) for name in ("a", "b", "c")}
    assert {name: job.state for name, job in states.items()} == {
        "a": JobState.WAITING,
        "b": JobState.FAILED,
        "c": JobState.WAITING,
    }
    refused = states["b"]
    assert refused.error
    assert (refused.error.code, refused.external_id, refused.ledger.submits) == (CODE, "x-b", 1)
    assert "outcome_unwritable" in (await store.reads.timeline("b"))[-1].detail
    assert recorder.pending == 0


@pytest.mark.usefixtures("small")
async def test_a_result_that_is_too_large_ends_its_job_visibly_and_keeps_its_external_id(store: Store) -> None:
    (claim,) = await submitting(store, "a")
    recorder = Recorder(store.lanes, lambda _: None)
    recorder.add(submitted(claim), claim=claim)
    await recorder.flushed()
    (poll,) = await running(store, POLL)
    result = codec.blob(b'"' + b"r" * 2 * MEGABYTE + b'"', 1 << 30)
    recorder.add(End(work_id="a", fence=poll.fence, state=JobState.SUCCEEDED, result=result, polls=1), claim=poll)
    await recorder.flushed()
    job = await store.reads.job("a")
    assert job.error
    assert (job.state, job.error.code, job.external_id) == (JobState.FAILED, CODE, "x-a")


async def test_large_results_do_not_share_one_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they could be more than Redis takes, though each of them is not."""
    monkeypatch.setattr(recording, "GROUP_BYTES", 1000)
    groups: list[int] = []
    record = store.lanes.record

    async def seen(outcomes: list[Wait | End]) -> object:
        groups.append(len(outcomes))
        return await record(outcomes)

    monkeypatch.setattr(store.lanes, "record", seen)
    recorder = Recorder(store.lanes, lambda _: None)
    result = codec.blob(b'"' + b"r" * 600 + b'"', 1 << 30)
    ends = [End(work_id=name, fence=1, state=JobState.SUCCEEDED, result=result) for name in ("a", "b")]
    recorder.add(*ends, Wait(work_id="c", fence=1, countdown_ms=0, status="", polls=1))
    await recorder.flushed()
    assert groups == [1, 2]


async def test_what_a_process_could_not_write_before_its_end_is_named(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    (claim,) = await submitting(store, "a")
    recorder = Recorder(store.lanes, lambda _: None)
    recorder.add(submitted(claim), claim=claim)
    recorder.abandon()
    (line,) = [record for record in caplog.records if record.message == "outcome-lost"]
    assert vars(line)["external_id"] == "x-a"
    await recorder.flushed()


async def test_a_paid_answer_without_a_job_is_kept_for_a_person(
    store: Store, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Protected by worker/engine/unwritable.py `orphaned`: the hash of the job was lost."""
    (claim,) = await submitting(store, "a")
    await connection.redis.delete(connection.keys("JOB", "a"))
    recorder = Recorder(store.lanes, lambda _: None)
    recorder.add(submitted(claim), claim=claim)
    await recorder.flushed()
    (orphan,) = await store.orphans.newest()
    assert (orphan.job_id, orphan.provider, orphan.external_id, orphan.outcome) == ("a", "unless", "x-a", "submitted")
    assert orphan.at > 0
    assert "outcome-orphaned" in [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert (await store.statistics.counted())["orphaned", "unless"] == 1


async def test_an_answer_whose_job_has_another_type_is_kept_for_a_person(store: Store, connection: Connection) -> None:
    (claim,) = await submitting(store, "a")
    key = connection.keys("JOB", "a")
    await connection.redis.delete(key)
    await connection.redis.set(key, "no hash")
    recorder = Recorder(store.lanes, lambda _: None)
    recorder.add(submitted(claim), claim=claim)
    await recorder.flushed()
    assert [orphan.external_id for orphan in await store.orphans.newest()] == ["x-a"]


async def test_what_nobody_paid_for_is_no_orphan(store: Store) -> None:
    recorder = Recorder(store.lanes, lambda _: None)
    recorder.add(Release(work_id="gone", fence=1), claim=Claim(work_id="gone", fence=1, provider="unless"))
    await recorder.flushed()
    assert await store.orphans.newest() == []


async def test_orphans_are_shown_to_people(store: Store, connection: Connection, settings: Settings) -> None:
    (claim,) = await submitting(store, "a")
    await connection.redis.delete(connection.keys("JOB", "a"))
    recorder = Recorder(store.lanes, lambda _: None)
    recorder.add(submitted(claim), claim=claim)
    await recorder.flushed()
    environment = {"OUTWAIT_REDIS_URL": settings.redis_url.get_secret_value(), "OUTWAIT_NAMESPACE": settings.namespace}

    async def said(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "outwait", *words),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[0].decode()

    assert "x-a" in await said("parked")
    assert json.loads(await said("parked", "--json"))["orphans"][0]["external_id"] == "x-a"
    assert "answers without a job" in await said("doctor", "--no-providers", "--json")
