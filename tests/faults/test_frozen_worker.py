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


async def slow(client: StoreClient, name: str, **fields: Any) -> None:
    """A job whose answers take seconds: long enough to freeze whoever waits for them, on a busy machine too."""
    await client.enqueue(query(f'{name} sandbox:{{"latency": 5}}', **fields), job_id=name)


async def polled(stack: Stack, text: str) -> bool:
    return any(job["polls"]["count"] for job in stack.seen(text))


async def submitted(stack: Stack, number: int) -> bool:
    return stack.ledger()["totals"]["unless"]["requests"]["submit"] >= number


async def held(client: StoreClient) -> bool:
    return "held" in [entry.event for entry in await client.timeline("sent")]


async def refused(stack: Stack, number: int) -> bool:
    return stack.logs("first").count("outcome-refused") >= number
