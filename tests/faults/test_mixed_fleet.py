"""Workers that lack the credentials of a provider or a handler: what they cannot do waits for those that can."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.engine.clock import Clock
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.unserved import UnservedLanes
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import DeliveryState, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes, NewJob
from outwait.worker.store.store import Store
from tests.faults.test_distance import SPEC
from tests.stack import WORKER, Stack, closed, query, until

HANDLERS = """
from outwait import handler

@handler("crm")
def crm():
    pass
"""
LACKS = {
    "keyless": {"OUTWAIT_PROVIDERS__UNLESS__API_KEY": ""},
    "handless": {"OUTWAIT_HANDLERS__MODULES": ""},
}
"""What is not set for each worker that lacks something."""
SUBMIT = Lane.of(Step.SUBMIT, "unless")


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    (tmp_path / "fleet_handlers.py").write_text(HANDLERS)
    variables = {"OUTWAIT_HANDLERS__MODULES": "fleet_handlers", "OUTWAIT_WORKER__TICK": "0.05"}
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0.1}}, variables=variables) as running:
        yield running


async def test_workers_without_credentials_or_handlers_fail_no_job_and_no_delivery(stack: Stack) -> None:
    """Protected by `_tick` in worker/engine/clock.py (nothing is claimed) and `decline` in engine/batches.py."""
    names = [f"fleet-{number}" for number in range(60)]
    async with stack.client() as client:
        lacking = [stack.start(WORKER, name, **variables) for name, variables in LACKS.items()]
        for name in LACKS:
            await until(lambda name=name: ready(stack, name))
        await client.enqueue_many([(query(name, targets=["crm"]), name) for name in names])
        for _ in range(2):
            stack.worker()
        for name in names:
            job = await closed(client, name)
            assert job.state is JobState.SUCCEEDED, job.error
            assert job.ledger.submits == 1
            assert [delivery.state for delivery in await client.deliveries(name)] == [DeliveryState.DELIVERED]
            assert job.ledger.deliveries == 1
        assert await client.dead() == []
        assert await client.unserved() == []
    assert [worker.poll() for worker in lacking] == [None, None]
    await until(lambda: doctor_names_both(stack))


async def doctor_names_both(stack: Stack) -> bool:
    doctor = await asyncio.to_thread(stack.run, "doctor", "--no-providers", "--json")
    findings = [finding for finding in json.loads(doctor.stdout) if finding["subject"].startswith("worker ")]
    return {finding["message"] for finding in findings} == {"lacks credentials of unless", "lacks handler crm"}


async def ready(stack: Stack, name: str) -> bool:
    return " ready." in stack.logs(name)


class Wall:
    """A connection whose jobs nobody serves, as the parts of a worker see it."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.lanes = Lanes(connection)
        self.policies = Policies(settings, build({}))
        self.store = Store(connection)

    async def enqueue(self, name: str, *, deadline_ms: int) -> None:
        job = NewJob(id=name, provider="unless", operation="query", digest="d", spec=SPEC, deadline_ms=deadline_ms)
        await self.lanes.enqueue([job])


@pytest.fixture
def wall(settings: Settings, connection: Connection) -> Wall:
    return Wall(settings, connection)


async def test_a_lane_that_this_worker_cannot_serve_is_left_to_others(wall: Wall) -> None:
    sent: list[Lane] = []
    await wall.enqueue("j1", deadline_ms=60_000)
    lacking = Clock(wall.lanes, wall.policies, lambda lane, _: sent.append(lane), lambda lane: lane.name != "unless")
    await lacking.tick()
    assert sent == []
    await Clock(wall.lanes, wall.policies, lambda lane, _: sent.append(lane)).tick()
    assert sent == [SUBMIT]


async def test_what_nobody_serves_is_warned_of_and_ends_at_its_deadline(
    wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    """Protected by worker/store/lua/overdue.lua: the deadline holds though no worker claims the lane."""
    await wall.enqueue("soon", deadline_ms=1)
    await wall.enqueue("later", deadline_ms=600_000)
    unserved = UnservedLanes(wall.lanes, wall.policies, after=0.05)

    async def warned() -> bool:
        lanes, _ = await wall.lanes.due_lanes()
        await unserved.leave(lanes)
        return "lane-not-served" in caplog.text

    await until(warned)
    assert (await wall.store.reads.job("soon")).state is JobState.EXPIRED
    assert (await wall.store.reads.job("later")).state is JobState.QUEUED
    assert SUBMIT in await wall.lanes.unserved(0.05), "it is not yet served by anybody"
    assert len(await wall.lanes.claim(SUBMIT, wall.policies.of(SUBMIT))) == 1
    assert SUBMIT not in await wall.lanes.unserved(0.05)


async def test_what_the_last_worker_that_served_a_lane_held_ends_at_its_deadline_too(wall: Wall) -> None:
    await wall.enqueue("held", deadline_ms=1)
    policy = wall.policies.of(SUBMIT)
    await wall.lanes.claim(SUBMIT, msgspec.structs.replace(policy, lease_ms=1))
    unserved = UnservedLanes(wall.lanes, wall.policies, after=0.0)

    async def ended() -> bool:
        unserved._look_at = asyncio.get_running_loop().time()  # no need to wait for its pace
        await unserved.leave([SUBMIT])
        return (await wall.store.reads.job("held")).state is JobState.EXPIRED

    await until(ended)


async def test_a_misspelt_handler_is_refused_once_workers_have_said_what_they_have(stack: Stack) -> None:
    """Protected by worker/store/handlers.py. Before that nobody can know: the delivery waits, and doctor tells."""
    async with stack.client() as client:
        job_id = (await client.enqueue(query(targets=["cmr"]))).job_id
        stack.worker()
        await until(lambda: unserved_by_all(client))
        (delivery,) = await client.deliveries(job_id)
        assert delivery.state is DeliveryState.PENDING
        doctor = await asyncio.to_thread(stack.run, "doctor", "--no-providers")
        assert "deliver:cmr" in doctor.stdout
        assert "@handler('cmr')" in doctor.stdout + doctor.stderr
        with pytest.raises(InvalidRequest, match="no worker has a handler 'cmr'"):
            await client.enqueue(query(targets=["cmr"]))
        await client.enqueue(query(targets=["crm"]))


async def unserved_by_all(client: StoreClient) -> bool:
    return [status.lane for status in await client.unserved()] == [Lane.of(Step.DELIVER, "cmr")]
