"""What a crash, a stop or a pause must not undo: polls keep their distance, and nothing is sent into a silence."""

import asyncio
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from outwait.config.settings import Settings
from outwait.worker.engine.batches import Batches
from outwait.worker.engine.begun_submits import BegunSubmits
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Outcome, Pause, Release, Submitted
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import LanePolicy, Lanes, NewJob
from outwait.worker.store.reads import Reads
from outwait.worker.telemetry.tally import Tally
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query, until

SUBMIT, POLL = Lane.parse("submit:unless"), Lane.parse("poll:unless")
POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100, provider="unless")
SPEC = codec.blob(b'{"params":{},"targets":[],"metadata":{}}', 100)


@pytest.fixture
async def lanes(connection: Connection) -> Lanes:
    """One job that waits for its first poll, due now."""
    lanes = Lanes(connection)
    await lanes.enqueue([NewJob(id="j1", provider="unless", operation="query", digest="d", spec=SPEC)])
    (claim,) = await lanes.claim(SUBMIT, POLICY)
    await lanes.record([Submitted(work_id="j1", fence=claim.fence, external_id="x-1", countdown_ms=0, submits=1)])
    return lanes


async def test_after_a_lease_the_next_poll_keeps_its_distance(lanes: Lanes) -> None:
    """Protected by worker/store/lua/claim.lua `put_back`: who was lost may have polled until its lease ended."""
    short = msgspec.structs.replace(POLICY, lease_ms=1, min_interval_ms=400)
    assert len(await lanes.claim(POLL, short)) == 1
    began = time.monotonic()

    async def again() -> list[Claim]:
        return await lanes.claim(POLL, short)

    await until(again)
    assert time.monotonic() - began >= 0.39


async def test_what_was_claimed_before_a_pause_is_not_sent_in_it(lanes: Lanes) -> None:
    """Protected by worker/store/lua/begin.lua `is_silenced`."""
    (claim,) = await lanes.claim(POLL, POLICY)
    await lanes.record([Pause(provider="unless", pause_ms=2000, reason="429")])
    assert (await lanes.begin(POLL, POLICY, [("j1", claim.fence)]))[1] == [0]
    assert (await lanes.begin(POLL, POLICY, [("j1", claim.fence)]))[1] == [0], "the claim is used up"
    assert await lanes.claim(POLL, POLICY) == []

    async def again() -> list[Claim]:
        return await lanes.claim(POLL, POLICY)

    (claim,) = await until(again)
    (fence,) = (await lanes.begin(POLL, POLICY, [("j1", claim.fence)]))[1]
    assert fence > 0


class Standing(Lanes):
    """A store whose answer to `begin` finds its process standing still."""

    async def begin(
        self, lane: str, policy: LanePolicy, items: Sequence[tuple[str, int]], *, intent: str = ""
    ) -> tuple[int, list[int]]:
        answer = await super().begin(lane, policy, items, intent=intent)
        time.sleep(1.2)  # noqa: ASYNC251 - that is the point
        return answer


class Sends:
    """A step that counts what it sends."""

    intent = True
    sent = 0

    async def prepare(self, claims: list[Claim], record: Recorder) -> list[Claim]:  # noqa: ARG002 - the contract
        return claims

    async def run(self, claim: Claim, now: int) -> Sequence[Outcome]:  # noqa: ARG002 - the contract
        self.sent += 1
        return [Release(work_id=claim.work_id, fence=claim.fence)]


@pytest.mark.parametrize(("store", "sent"), [(Standing, 0), (Lanes, 1)])
async def test_a_process_that_stood_still_sends_nothing_stale(
    connection: Connection, settings: Settings, store: type[Lanes], sent: int
) -> None:
    """Protected by worker/engine/batches.py `_run_step`. Nothing was sent, so the job is not uncertain either."""
    patient = settings.model_copy(update={"submit": settings.submit.model_copy(update={"time_limit": 5, "lease": 10})})
    lanes = store(connection)
    recorder, step = Recorder(lanes, lambda _lanes: None), Sends()
    await lanes.enqueue([NewJob(id="j1", provider="unless", operation="query", digest="d", spec=SPEC)])
    claims = await lanes.claim(SUBMIT, POLICY)
    await Batches(lanes, Policies(patient, build({})), recorder, BegunSubmits(60), Tally()).run(SUBMIT, claims, step)
    assert step.sent == sent
    assert (await Reads(connection).job("j1")).state is JobState.QUEUED
    assert len(await lanes.claim(SUBMIT, POLICY)) == 1


async def test_a_poll_that_a_stop_cut_off_keeps_its_distance(redis_url: str, tmp_path: Path) -> None:
    """Protected by tasks/poll.py `_stopped`: the request left, so the next one waits for the provider's interval."""
    variables = {
        "OUTWAIT_SUBMIT__TIME_LIMIT": "5",
        "OUTWAIT_WORKER__GRACE": "5",
        "OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "4",
    }
    with Stack(redis_url, tmp_path, options={"poll_minimum": 4}, variables=variables) as stack:
        async with stack.client() as client:
            worker = stack.worker()
            order = {"duration": 0, "faults": [{"fault": "hang", "on": "poll"}]}
            await client.enqueue(query(f"cut sandbox:{json.dumps(order)}"), job_id="cut")

            async def polled() -> bool:
                return any(job["polls"]["count"] for job in stack.seen("cut"))

            await until(polled)
            worker.send_signal(signal.SIGTERM)
            stack.worker()
            job = await closed(client, "cut")
        await asyncio.to_thread(worker.wait, PATIENCE)
        (seen,) = stack.seen("cut")
        assert (job.state, job.ledger.polls, seen["polls"]["too_fast"]) == (JobState.SUCCEEDED, 2, 0)


async def test_a_crash_leaves_few_submits_in_doubt(connection: Connection, settings: Settings) -> None:
    """Protected by worker/engine/lane_policies.py `SMALL_BATCH`: a batch's intents are written before its requests."""
    lanes, lane = Lanes(connection), SUBMIT
    await lanes.enqueue(
        [NewJob(id=f"j{number}", provider="unless", operation="query", digest="d", spec=SPEC) for number in range(40)]
    )
    assert len(await lanes.claim(lane, Policies(settings, build({})).of(lane))) == 16
