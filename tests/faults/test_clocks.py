"""A worker whose clock is an hour wrong, before or behind: nothing is early, late or lost."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import Job, JobRequest, JobState
from tests.stack import Stack, closed, query, until

WRONG = """
import datetime, os, time

right, shift = time.time, float(os.environ["CLOCK_SHIFT"])
time.time = lambda: right() + shift

class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=shift)

    @classmethod
    def utcnow(cls):
        return super().utcnow() + datetime.timedelta(seconds=shift)

datetime.datetime = Wrong
"""
"""Put before everything else that the worker imports."""

HOUR = 3600
"""How wrong the clock is: whatever is half as late as that went by it."""

EVERY, DURATION = 0.4, 0.5
SPEECH = {"contentUri": "https://a.example/1.wav", "encoding": "Wav", "languageCode": "en-US"}


@pytest.fixture(scope="module", params=[HOUR, -HOUR], ids=["before", "behind"])
def stack(request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("clocks")
    (folder / "sitecustomize.py").write_text(WRONG)
    options = {"behaviour": {"duration": DURATION, "jitter": 0}, "poll_minimum": EVERY}
    variables = {f"OUTWAIT_PROVIDERS__{name}__POLL_EVERY": str(EVERY) for name in ("UNLESS", "RINGCENTRAL")}
    with Stack(redis_url, folder, options=options, variables=variables) as stack:
        stack.worker(CLOCK_SHIFT=str(request.param))
        yield stack
        assert ("ahead of" if request.param > 0 else "behind") in stack.logs(), "the clock was right"


async def test_jobs_go_their_way_in_their_time_and_expire_in_theirs(stack: Stack) -> None:
    """Protected by worker/store/lua/prelude.lua and worker/engine/batches.py `_run`: the time is Redis's own."""
    async with stack.client() as client:
        requests = [query(f"plain {number}", deadline=1800) for number in range(10)]
        requests.append(query('slow sandbox:{"latency": 1}', deadline=1800))
        requests.append(JobRequest(provider="ringcentral", operation="speech-to-text", params=SPEECH))
        ids = [(await client.enqueue(request)).job_id for request in requests]
        never = (await client.enqueue(query('x sandbox:{"outcome": "never"}', deadline=1.5))).job_id
        for job_id in ids:
            job = await closed(client, job_id)
            assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1), job.error
            assert "lease-ended" not in [entry.event for entry in await client.timeline(job_id)]
            assert 0 < lasted(job) < HOUR / 2
        late = await closed(client, never)
        assert late.state is JobState.EXPIRED
        assert 1.5 <= lasted(late) < HOUR / 2
    for totals in stack.ledger()["totals"].values():
        assert totals["polls_too_fast"] == 0


async def test_a_message_is_due_when_its_producer_said(stack: Stack, redis_url: str) -> None:
    """Protected by worker/engine/messages.py `_seconds_until`: `eta` and `expires` are compared with Redis's time."""
    producer = Celery("producer", broker=redis_url, set_as_current=False)
    kwargs = query("from a producer").model_dump(exclude_unset=True)
    now = datetime.now(UTC)
    for name, options in {
        "later": {"countdown": 2},
        "in-time": {"expires": now + timedelta(seconds=60)},
        "too-late": {"expires": now - timedelta(seconds=60)},
    }.items():
        producer.send_task(
            "tasks.submit", kwargs=kwargs, task_id=name, queue=stack.variables["OUTWAIT_INTAKE__QUEUE"], **options
        )
    producer.close()
    async with stack.client() as client:
        ended = {name: await known(client, name) for name in ("later", "in-time", "too-late")}
    assert {name: job.state for name, job in ended.items()} == {
        "later": JobState.SUCCEEDED,
        "in-time": JobState.SUCCEEDED,
        "too-late": JobState.FAILED,
    }
    assert ended["later"].submitted is not None
    assert 2 <= ended["later"].submitted - now.timestamp() < HOUR / 2


async def known(client: StoreClient, job_id: str) -> Job:
    """The job, once its message was taken in and it has ended."""

    async def there() -> bool:
        return job_id in [job.id for job in (await client.jobs()).jobs]

    await until(there)
    return await closed(client, job_id)


def lasted(job: Job) -> float:
    assert job.ended is not None
    assert abs(job.ended - time.time()) < HOUR / 2, "times are Redis's"
    return job.ended - job.created
