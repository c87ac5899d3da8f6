"""Redis has done what it was told and the connection breaks before the reply: everything counts once."""

from collections import Counter
from collections.abc import Iterator

import pytest

from outwait.worker.model.jobs import DeliveryState, JobState
from tests.faults.wire import Point, Stop, Wire
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query

LEASE = 10.0
UNFINISHED = 'sandbox:{"duration":0.3,"unfinished_polls":1}'
"""So that there is a poll that finds it unfinished, however busy this machine is."""

RECORDED = {
    "submit": b"\xa9submitted",
    "unfinished": b"\xa4wait",
    "poll": b"\xa3end",
    "callback": b"\xa6fanout",
    "deliver": b"\xa9delivered",
}
BEGUN = {
    "submit": b"\xadsubmit:unless",
    "poll": b"\xabpoll:unless",
}

INTENT = b"\xa6intent\xc3"


class Cut:
    """A stack whose one worker reaches Redis by our wire."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire

    async def run(self, name: str, stop: Stop | None = None) -> Counter[str]:
        """A job through the whole of it, which ends well and once; its events."""
        async with self.stack.client() as client:
            await client.enqueue(query(f"{name} {UNFINISHED}", targets=["file:lost.jsonl"]), job_id=name)
            job = await closed(client, name)
            assert stop is None or stop.reached.wait(PATIENCE), "the reply was not lost"
            assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1), job.error
            (seen,) = self.stack.seen(f"{name} ")
            assert job.ledger.polls == seen["polls"]["count"]
            assert [delivery.state for delivery in await client.deliveries(name)] == [DeliveryState.DELIVERED]
            assert job.ledger.deliveries == 1
            return Counter(entry.event for entry in await client.timeline(name))


@pytest.fixture(scope="module")
def cut(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    variables = {
        f"OUTWAIT_{step}__{name}": value
        for step in ("SUBMIT", "POLL", "CALLBACK", "DELIVER")
        for name, value in (("TIME_LIMIT", "8"), ("LEASE", str(LEASE)))
    }
    variables["OUTWAIT_INTAKE__LEASE"] = "1"
    options = {"behaviour": {"duration": 0.3}}
    folder = tmp_path_factory.mktemp("lost")
    with (
        Stack(redis_url, folder, options=options, variables=variables) as stack,
        Wire(redis_url, stack.variables["OUTWAIT_NAMESPACE"]) as wire,
    ):
        stack.worker(OUTWAIT_REDIS_URL=wire.url)
        yield Cut(stack, wire)


@pytest.mark.parametrize("step", RECORDED)
async def test_a_record_counts_once(cut: Cut, step: str) -> None:
    """Protected by worker/store/lua/record.lua: each outcome raises the fence, so the repeated write is refused."""
    await cut.run(f"record-{step}-warm")
    story = await cut.run(f"record-{step}", cut.wire.stop(Point.LOST, "record", RECORDED[step], f"record-{step}"))
    once = {"submitted", "succeeded", "callback", "delivered", "closed"}
    assert {story[event] for event in once} == {1}, story
    assert not story["lease-ended"], "a lost reply costs no lease"


@pytest.mark.parametrize("step", BEGUN)
async def test_a_begin_costs_at_most_its_lease(cut: Cut, step: str) -> None:
    """Protected by worker/store/lua/begin.lua: sent again it is a stale claim, and its lease ends."""
    await cut.run(f"begin-{step}-warm")
    stop = cut.wire.stop(Point.LOST, "begin", BEGUN[step], f"begin-{step}")
    story = await cut.run(f"begin-{step}", stop)
    assert not story["uncertain"], "nothing was sent"


async def test_an_intent_whose_reply_is_lost_is_written_again(cut: Cut) -> None:
    """Protected by worker/store/lua/renew.lua: the fence stays the same, so it may come twice."""
    await cut.run("intent-warm")
    story = await cut.run("intent-1", cut.wire.stop(Point.LOST, "renew", INTENT, "intent-1"))
    assert not story["lease-ended"]


async def test_an_intent_that_is_never_answered_leaves_no_doubt(cut: Cut) -> None:
    """Protected by worker/engine/leases.py `intend`: nothing is sent, so the job is given back at once."""
    await cut.run("never-warm")
    stops = [cut.wire.stop(Point.LOST, "renew", INTENT, "never-1") for _ in range(2)]  # it is tried twice
    story = await cut.run("never-1", stops[1])
    assert not story["uncertain"], "nothing was sent"
    assert not story["lease-ended"]


@pytest.mark.parametrize("script", ["claim", "due_lanes"])
async def test_a_claim_costs_its_lease(cut: Cut, script: str) -> None:
    """Protected by worker/store/lua/claim.lua `put_back`."""
    await cut.run(f"{script}-warm")
    marks = ["submit:unless"] if script == "claim" else []
    await cut.run(f"{script}-1", cut.wire.stop(Point.LOST, script, *marks))
