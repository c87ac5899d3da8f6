"""Workers of the previous release beside ours, as in a rolling upgrade: each goes on with what the other began."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import JobRequest, JobState
from tests.faults import previous
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query, until

DURATION = 3.0
"""Seconds of each job: longer than a worker takes to start, so that the second one polls what the first submitted."""


class Both:
    """A stack and the previous release's code."""

    def __init__(self, stack: Stack, code: Path) -> None:
        self.stack = stack
        self.code = code

    def hire(self, *, old: bool) -> subprocess.Popen[bytes]:
        if old:
            return self.stack.start(previous.WORKER, "old", code=self.code, **previous.without(self.stack.variables))
        return self.stack.worker()


@pytest.fixture(scope="module")
def both(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("releases")
    code = previous.checkout(folder / "previous")
    if code is None:
        pytest.skip(previous.MISSING)
    with Stack(redis_url, folder, options={"behaviour": {"duration": DURATION}}) as stack:
        asked = [
            sys.executable,
            "-c",
            "import worker.store, tasks.submit; print(worker.__file__, tasks.__file__)",
        ]
        probe = stack.start(asked, "probe", code=code)
        assert probe.wait(PATIENCE) == 0
        assert stack.logs("probe").count(str(code)) == 2, "the previous release's own code runs"
        yield Both(stack, code)


@pytest.mark.parametrize("old_first", [True, False], ids=["upgrade", "step back"])
async def test_each_goes_on_with_what_the_other_began(both: Both, *, old_first: bool) -> None:
    """Protected by worker/model/jobs.py `Claim`, which only grows at its end, and store/fields.py: codes stay."""
    kind = "old" if old_first else "new"
    names = [f"{kind}-{number}" for number in range(20)]
    beside = [f"{kind}-beside-{number}" for number in range(20)]
    async with both.stack.client() as client:
        first = both.hire(old=old_first)
        await client.enqueue_many([(asked(number, name), name) for number, name in enumerate(names)])
        await until(lambda: submitted(client, names))
        second = both.hire(old=not old_first)
        await until(lambda: ready(both.stack, "worker" if old_first else "old"))
        await client.enqueue_many([(asked(number, name), name) for number, name in enumerate(beside)])
        await until(lambda: submitted(client, [*names, *beside]))
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, PATIENCE) == 0
        for name in (*names, *beside):
            job = await closed(client, name)
            assert (job.state, job.ledger.submits, job.ledger.deliveries) == (JobState.SUCCEEDED, 1, 1), job.error
            assert "lease-ended" not in [entry.event for entry in await client.timeline(name)]
        second.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait, PATIENCE) == 0
    assert both.stack.ledger()["totals"]["unless"]["repeated_submits"] == 0
    for log in ("old", "worker"):
        assert "Traceback" not in both.stack.logs(log)


async def test_what_waits_for_its_turn_is_delivered_beside_an_old_worker(both: Both) -> None:
    """Protected by record/admission.lua: what is admitted stands where old workers look, and `prune` sees its ends."""
    names = [f"turn-{number}" for number in range(60)]
    async with both.stack.client() as client:
        workers = [both.hire(old=True), both.stack.worker(OUTWAIT_DELIVER__PER_TENANT="4")]
        await client.enqueue_many([(query(name, targets=["file:turns.jsonl"]), name) for name in names])
        for name in names:
            job = await closed(client, name)
            assert (job.state, job.ledger.deliveries) == (JobState.SUCCEEDED, 1), job.error
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, PATIENCE) == 0
    for log in ("old", "worker"):
        assert "Traceback" not in both.stack.logs(log)


def asked(number: int, text: str) -> JobRequest:
    """Of several tenants and priorities: each release takes jobs out of lines that the other one wrote."""
    return query(text, targets=["file:both.jsonl"], tenant=f"t-{number % 3}", priority=number % 10)


async def ready(stack: Stack, name: str) -> bool:
    return "ready." in stack.logs(name)


async def submitted(client: StoreClient, names: Sequence[str]) -> bool:
    jobs = {job.id for job in (await client.jobs(limit=200)).jobs if job.submitted}
    return jobs.issuperset(names)
