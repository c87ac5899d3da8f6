"""SIGTERM: a worker claims no more, ends or gives back what it holds; the others go on at once, not after a lease."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outwait.client.store import StoreClient
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import JobRequest, JobState
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query, until

LONG = {
    f"OUTWAIT_{step}__{name}": value
    for step in ("SUBMIT", "POLL", "CALLBACK", "DELIVER")
    for name, value in (("TIME_LIMIT", str(PATIENCE)), ("LEASE", str(2 * PATIENCE)))
} | {"OUTWAIT_SUBMIT__TIME_LIMIT": "10", "OUTWAIT_WORKER__GRACE": "10"}
"""What waits for a lease waits longer than any test does."""

HANDLERS = """
import asyncio, pathlib
from outwait import handler

CALLED = pathlib.Path(__file__).with_name("called")

@handler("endless")
async def endless(envelope):
    if not CALLED.exists():
        CALLED.touch()
        await asyncio.sleep(3600)
"""


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0}}, variables=LONG) as stack:
        yield stack


async def marked(client: StoreClient, name: str, **marker: Any) -> None:
    await client.enqueue(query(f"{name} sandbox:{json.dumps({'duration': 0} | marker)}"), job_id=name)


def terminate(worker: subprocess.Popen[bytes]) -> None:
    """Tell a worker to end, and wait until it has: far sooner than its leases end."""
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0


async def test_under_load_nothing_waits_for_a_lease(stack: Stack) -> None:
    """Protected by worker/app.py `Engine.stop` and worker/engine/batches.py `drain`."""
    names = [f"load-{number}" for number in range(600)]
    async with stack.client() as client:
        workers = [stack.worker(), stack.worker()]
        requests = [(query(f"{name} ", targets=["file:load.jsonl"]), name) for name in names]
        await client.enqueue_many(requests[:200])
        await closed(client, "load-0")
        await client.enqueue_many(requests[200:])
        stack.order(duration=0, latency=1.2)  # longer than OUTWAIT_WORKER__HANDOFF: steps go on without their thread
        await until(lambda: in_flight(stack, 20))
        terminate(workers[0])
        for name in names:
            job = await closed(client, name)
            assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1)
    assert stack.ledger()["totals"]["unless"]["repeated_submits"] == 0
    lines = (stack.folder / "results" / "load.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["job_id"] for line in lines) == sorted(names)


async def test_a_slow_submit_is_waited_for(stack: Stack) -> None:
    """Protected by worker/engine/batches.py `drain`: a submit that is cut off would leave its job uncertain."""
    async with stack.client() as client:
        worker = stack.worker()
        await marked(client, "slow", latency=4)
        await until(lambda: requests(stack, "submit", 1))
        worker.send_signal(signal.SIGTERM)
        assert await in_flight(stack, 1), "the submit is over: this shows nothing"
        assert worker.wait(PATIENCE) == 0
        job = await client.job("slow")
        assert (job.state, job.ledger.submits) == (JobState.WAITING, 1)


async def test_what_never_answers_is_given_back_or_told_as_uncertain(stack: Stack) -> None:
    """Protected by tasks/poll.py `_stopped` and tasks/submit.py `decide_error`: a submit ends by its limit."""
    (stack.folder / "endless_handlers.py").write_text(HANDLERS)
    modules = {"OUTWAIT_HANDLERS__MODULES": "endless_handlers"}
    async with stack.client() as client:
        worker = stack.worker(**modules)
        await marked(client, "polled", faults=[{"fault": "hang", "on": "poll"}])
        await client.enqueue(query("handled", targets=["endless"]), job_id="handled")
        await until(lambda: requests(stack, "poll", 2))
        await until(lambda: called(stack))
        await marked(client, "lost", faults=[{"fault": "hang_after", "on": "submit"}])
        await until(lambda: requests(stack, "submit", 3))
        other = stack.worker(OUTWAIT_WORKER__GRACE=str(2 * PATIENCE), **modules)
        terminate(worker)
        for name in ("polled", "handled"):
            assert (await closed(client, name)).state is JobState.SUCCEEDED
        await until(lambda: held(client, "lost"))
        assert (await client.job("lost")).ledger.submits == len(stack.seen("lost")) == 1
        terminate(other)  # at once, and not after its grace: it holds nothing


async def test_what_is_still_being_prepared_is_given_back(stack: Stack) -> None:
    """Protected by worker/engine/batches.py `drain`: it waits for whole batches, and none begins a step after it."""
    params = {"contentUri": "https://a.example/1.wav", "encoding": "Wav", "languageCode": "en-US"}
    stack.order(provider="ringcentral", duration=0, latency=1.5)
    async with stack.client() as client:
        worker = stack.worker()
        request = JobRequest(provider="ringcentral", operation="speech-to-text", params=params)
        await client.enqueue(request, job_id="prepared")
        await until(lambda: requests(stack, "token", 1, provider="ringcentral"))
        other = stack.worker()
        terminate(worker)
        job = await closed(client, "prepared")
        assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1), job.error
        assert other.poll() is None


async def test_while_redis_is_away_it_still_ends(tmp_path: Path) -> None:
    """Protected by worker/engine/batches.py `drain`: outcomes that cannot be written are not waited for without end."""
    short = LONG | {"OUTWAIT_POLL__TIME_LIMIT": "8", "OUTWAIT_POLL__LEASE": "10"}
    short |= {"OUTWAIT_SUBMIT__TIME_LIMIT": "8", "OUTWAIT_WORKER__GRACE": "8"}
    redis = EmbeddedRedis(tmp_path / "redis").start()
    try:
        with Stack(redis.url, tmp_path, variables=short) as stack:
            worker = stack.worker()
            async with stack.client() as client:
                await marked(client, "away", latency=1)
                await until(lambda: requests(stack, "poll", 1))
                redis.stop()
                terminate(worker)
                redis.start()
                stack.worker()
                job = await closed(client, "away")
                assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1)
    finally:
        redis.stop()


async def requests(stack: Stack, call: str, number: int, *, provider: str = "unless") -> bool:
    totals = stack.ledger()["totals"].get(provider, {})
    return bool(totals) and totals["requests"][call] >= number


async def in_flight(stack: Stack, number: int) -> bool:
    return bool(stack.ledger()["totals"]["unless"]["in_flight"] >= number)


async def called(stack: Stack) -> bool:
    return (stack.folder / "called").exists()


async def held(client: StoreClient, name: str) -> bool:
    return "held" in [entry.event for entry in await client.timeline(name)]
