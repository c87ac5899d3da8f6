"""Whoever acts cannot wipe the traces of it, nor those of somebody else."""

from collections.abc import AsyncIterator

import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.model.errors import Conflict
from outwait.worker.model.jobs import Step
from outwait.worker.model.lanes import Lane
from outwait.worker.store.lanes import Held, LanePolicy
from tests.stack import query

POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[StoreClient]:
    """No worker runs: what is enqueued stays as it is."""
    async with StoreClient(settings) as client:
        yield client


async def test_messages_that_conflict_leave_a_timeline_as_it_was(client: StoreClient) -> None:
    """Protected by worker/store/lua/enqueue.lua: they are counted in one entry, 210 of them as well as one."""
    job_id = (await client.enqueue(query("mine"), job_id="mine")).job_id
    before = await client.timeline(job_id)
    for number in range(210):
        with pytest.raises(Conflict):
            await client.enqueue(query(f"not mine {number}", tenant="mallory"), job_id=job_id)
    after = await client.timeline(job_id)
    assert after[: len(before)] == before
    (entry,) = after[len(before) :]
    assert (entry.event, entry.detail.partition(";")[2].strip()) == ("conflict", "210 so far")


async def test_asking_for_a_cancel_again_and_again_is_one_entry(client: StoreClient) -> None:
    """Protected by worker/store/lua/record/jobs.lua `verbs.cancel`, while a submit is on its way."""
    job_id = (await client.enqueue(query("mine"))).job_id
    lane, lanes = Lane.of(Step.SUBMIT, "unless"), client._store.lanes
    (claim,) = await lanes.claim(lane, POLICY)
    _, (fence,) = await lanes.begin(lane, POLICY, [Held(claim.work_id, claim.fence)])
    assert await lanes.renew(lane, POLICY, [Held(claim.work_id, fence)], intent=True) == [True]
    for _ in range(210):
        assert not await client.cancel(job_id)
    assert [entry.event for entry in await client.timeline(job_id)].count("cancel-asked") == 1
    assert (await client.timeline(job_id))[0].event == "enqueued"
