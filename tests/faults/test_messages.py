"""Celery's messages are hints: doubled, late or lost they change nothing. The worker is frozen: we are its clock."""

import subprocess
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from celery import Celery

from outwait.client.store import StoreClient
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.lanes import Lane
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from tests.stack import Stack, closed, query, until

LANE = Lane.parse("poll:unless")
LEASE = 10.0


class Late:
    """A worker whose clock we are while it is frozen."""

    def __init__(self, stack: Stack, worker: subprocess.Popen[bytes], redis_url: str) -> None:
        self.stack = stack
        self.worker = worker
        self.producer = Celery("clock", broker=redis_url, set_as_current=False)
        settings = stack.settings
        self.policy = Policies(settings, build(settings.providers)).of(LANE)
        self.queue = settings.step_queues["poll"]

    def send(self, claims: list[Claim], task: str = "tasks.poll") -> None:
        self.producer.send_task(task, [str(LANE), msgspec.to_builtins(claims)], queue=self.queue)


@pytest.fixture(scope="module")
def late(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Late]:
    variables = {
        "OUTWAIT_POLL__TIME_LIMIT": "8",
        "OUTWAIT_POLL__LEASE": str(LEASE),
        "OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "3",  # time to freeze the worker before its clock is at it
    }
    options = {"behaviour": {"duration": 0}}
    with Stack(redis_url, tmp_path_factory.mktemp("messages"), options=options, variables=variables) as stack:
        late = Late(stack, stack.worker(), redis_url)
        yield late
        late.producer.close()


@pytest.fixture
async def lanes(late: Late) -> AsyncIterator[Lanes]:
    connection = Connection(late.stack.settings)
    yield Lanes(connection)
    await connection.close()


async def waiting(client: StoreClient, name: str) -> None:
    await client.enqueue(query(name), job_id=name)

    async def look() -> bool:
        return (await client.job(name)).state is JobState.WAITING

    await until(look)


async def claimed(late: Late, lanes: Lanes, name: str, *, lease: int | None = None) -> list[Claim]:
    """The claims that the clock would send for this job, as soon as it is due."""
    policy = late.policy if lease is None else msgspec.structs.replace(late.policy, lease_ms=lease)

    async def look() -> list[Claim]:
        return await lanes.claim(LANE, policy)

    claims: list[Claim] = await until(look)
    assert [claim.work_id for claim in claims] == [name]
    return claims


def stale(late: Late) -> int:
    return late.stack.logs().count("stale-claims")


async def dropped(late: Late, number: int) -> None:
    async def look() -> bool:
        return stale(late) >= number

    await until(look)


async def test_a_message_that_comes_twice_polls_once(late: Late, lanes: Lanes) -> None:
    """Protected by worker/store/lua/begin.lua: the fence of a claim is good for one run."""
    before = stale(late)
    async with late.stack.client() as client:
        await waiting(client, "twice")
        with late.stack.frozen(late.worker):
            claims = await claimed(late, lanes, "twice")
            late.send(claims)
            late.send(claims)
        job = await closed(client, "twice")
        await dropped(late, before + 1)
        assert (job.state, job.ledger.polls) == (JobState.SUCCEEDED, 1)
        assert [job["polls"]["count"] for job in late.stack.seen("twice")] == [1]


async def test_a_message_that_comes_after_its_lease_does_nothing(late: Late, lanes: Lanes) -> None:
    """Protected by worker/store/lua/begin.lua: the fence has risen since, and the lease is gone."""
    before = stale(late)
    async with late.stack.client() as client:
        await waiting(client, "late")
        with late.stack.frozen(late.worker):
            claims = await claimed(late, lanes, "late", lease=1)
            again = await claimed(late, lanes, "late")
            late.send(claims)
            late.send(again)
            late.send(claims)
        job = await closed(client, "late")
        late.send(claims)
        late.send(again)
        await dropped(late, before + 4)
        assert (job.state, job.ledger.polls) == (JobState.SUCCEEDED, 1)
        assert [job["polls"]["count"] for job in late.stack.seen("late")] == [1]


async def test_a_lost_message_costs_its_lease(late: Late, lanes: Lanes) -> None:
    """Protected by worker/store/lua/claim.lua `put_back`: a claim that nobody runs is due again."""
    async with late.stack.client() as client:
        await waiting(client, "lost")
        with late.stack.frozen(late.worker):
            await claimed(late, lanes, "lost")
        job = await closed(client, "lost")
        assert (job.state, job.ledger.polls) == (JobState.SUCCEEDED, 1)
        assert "lease-ended" in [entry.event for entry in await client.timeline("lost")]


async def test_messages_that_make_no_sense_stop_nothing(late: Late) -> None:
    """Protected by Celery, which ends a task that raises: worker/engine/batches.py has begun nothing by then."""
    for claims in ([["no-such-job", 1]], [["x"]], "x", [], [[1, 2, 3]]):
        late.producer.send_task("tasks.poll", [str(LANE), claims], queue=late.queue)
    late.producer.send_task("tasks.poll", [], queue=late.queue)
    late.producer.send_task("tasks.poll", ["no such lane", [["no-such-job", 1]]], queue=late.queue)
    late.producer.send_task("tasks.nothing", [], queue=late.queue)
    async with late.stack.client() as client:
        job_id = (await client.enqueue(query("after nonsense"))).job_id
        assert (await closed(client, job_id)).state is JobState.SUCCEEDED
    assert late.worker.poll() is None
