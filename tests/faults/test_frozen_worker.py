"""A worker stands still for longer than its leases, and wakes up with answers that are no longer its to write."""

from pathlib import Path
from typing import Any

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import DeliveryState, JobState
from tests.stack import WORKER, Stack, closed, query, until


async def test_it_writes_nothing_after_its_lease(redis_url: str, tmp_path: Path) -> None:
    """Protected by worker/store/lua/record/jobs.lua `load_job`: the fence of the outcome is not the job's any more."""
    times = {"TIME_LIMIT": "10", "LEASE": "12"}
    variables = {f"OUTWAIT_{step}__{name}": value for step in ("SUBMIT", "POLL") for name, value in times.items()}
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
        first = stack.start(WORKER, "first")
        async with stack.client() as client:
            await slow(client, "asked", targets=["file:asked.jsonl"])
            await until(lambda: polled(stack, "asked"))
            await slow(client, "sent")
            await until(lambda: submitted(stack, 2))
            with stack.frozen(first):
                stack.worker()
                asked = await closed(client, "asked")
                await until(lambda: held(client))
                sent, story = await client.job("sent"), await client.timeline("sent")
            await until(lambda: refused(stack, 2))
            assert await client.job("asked") == asked
            assert (asked.state, asked.ledger.submits) == (JobState.SUCCEEDED, 1)
            assert [delivery.state for delivery in await client.deliveries("asked")] == [DeliveryState.DELIVERED]
            assert await client.job("sent") == sent
            assert sent.state is JobState.UNCERTAIN
            assert await client.timeline("sent") == story
            assert [len(stack.seen(name)) for name in ("asked", "sent")] == [1, 1]
        assert len((tmp_path / "results" / "asked.jsonl").read_text().splitlines()) == 1
        assert first.poll() is None


async def test_it_sends_nothing_after_its_lease(redis_url: str, tmp_path: Path) -> None:
    """Protected by worker/engine/leases.py `check`: its own clock went on, and says that another may have its jobs."""
    names = [f"many-{number}" for number in range(200)]
    variables = {f"OUTWAIT_{step}__LEASE": "3" for step in ("SUBMIT", "POLL", "CALLBACK", "DELIVER")}
    options = {"behaviour": {"duration": 0.3, "latency": 0.3}}
    with Stack(redis_url, tmp_path, options=options, variables=variables) as stack:
        first = stack.start(WORKER, "first")
        async with stack.client() as client:
            await client.enqueue_many([(query(f"{name} "), name) for name in names])
            await until(lambda: submitted(stack, 30))
            with stack.frozen(first):
                stack.worker()
                await until(lambda: at_rest(client, len(names)))
                before = stack.ledger()["totals"]["unless"]["requests"]
            await client.enqueue(query("afterwards "), job_id="afterwards")
            await closed(client, "afterwards")
            await until(lambda: awake(stack))
            counts = (await client.counts())["unless"]
        after = stack.ledger()["totals"]["unless"]
        assert after["requests"]["submit"] == before["submit"] + 1
        assert after["repeated_submits"] == 0
        assert counts["failed"] == 0


async def at_rest(client: StoreClient, number: int) -> bool:
    """Whether so many jobs have ended or are held, and nothing is left to do but for a person."""
    counts = (await client.counts())["unless"]
    busy = [lane for lane in await client.lanes() if lane.lane.step]
    ended = counts["succeeded"] + counts["uncertain"]
    return ended == number and not any(lane.due_now + lane.waiting + lane.leased for lane in busy)


async def awake(stack: Stack) -> bool:
    return "outcome-refused" in stack.logs("first")


async def slow(client: StoreClient, name: str, **fields: Any) -> None:
    """A job whose answers take seconds: long enough to freeze whoever waits for them, on a busy machine too."""
    await client.enqueue(query(f'{name} sandbox:{{"latency": 5}}', **fields), job_id=name)


async def polled(stack: Stack, text: str) -> bool:
    return any(job["polls"]["count"] for job in stack.seen(text))


async def submitted(stack: Stack, number: int) -> bool:
    totals = stack.ledger()["totals"].get("unless")
    return totals is not None and totals["requests"]["submit"] >= number


async def held(client: StoreClient) -> bool:
    return "held" in [entry.event for entry in await client.timeline("sent")]


async def refused(stack: Stack, number: int) -> bool:
    return stack.logs("first").count("outcome-refused") >= number
