"""Another Redis becomes the master under load: nothing that was promised is lost, and nothing is paid twice.

Protected by `WAIT` after what is promised on (worker/store/scripts.py). With OUTWAIT_LONG each kind happens five times
to 1,000 jobs.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.errors import JobNotFound, StoreUnavailable
from outwait.worker.model.jobs import JobState
from tests.faults.sentinels import Replicated
from tests.patience import until, wait_until
from tests.stack import LEASES, Stack, query

LONG = bool(os.environ.get("OUTWAIT_LONG"))
JOBS, ROUNDS = (1000, 5) if LONG else (120, 1)

AT_ONCE = 20
"""Producers that enqueue one job after the other."""

REPLICAS = 2

SAFE = {"OUTWAIT_STORE__REPLICAS": str(REPLICAS)}

ANSWERS = {"behaviour": {"duration": 1, "latency": 0.3}}

UNHURRIED = {
    # A Redis that stands still is noticed within seconds; leases outlive the fail-over.
    "OUTWAIT_STORE__TIMEOUT": "4",
    "OUTWAIT_PROVIDERS__UNLESS__IN_FLIGHT": "24",
    "OUTWAIT_PROVIDERS__UNLESS__POLL_EVERY": "0.5",
    **dict.fromkeys(LEASES, "25"),  # what was claimed in a reply that was lost waits for so long
}


def planned(redis: Replicated) -> None:
    redis.fail_over()


def killed(redis: Replicated) -> None:
    """With kill -9; the server is started again when there is another master."""
    before = redis.master
    redis.kill(before)
    wait_until(lambda: redis.master not in (0, before), what="another master")
    redis.start(before)


def frozen(redis: Replicated) -> None:
    """It still takes itself for the master when it goes on."""
    before = redis.master
    redis.signal(before, signal.SIGSTOP)
    wait_until(lambda: redis.master not in (0, before), what="another master")
    redis.signal(before, signal.SIGCONT)


Kind = Callable[[Replicated], None]


@pytest.mark.parametrize("kind", [planned, killed, frozen], ids=lambda kind: kind.__name__)
async def test_a_failover_under_load_loses_nothing_and_pays_nothing_twice(tmp_path: Path, kind: Kind) -> None:
    for number in range(ROUNDS):
        found = await under_load(tmp_path / str(number), kind, SAFE)
        sys.stdout.write(f"{kind.__name__} {number}: {dict(found)}\n")
        assert (found["accepted"], found["lost"], found["paid twice"], found["failed"]) == (JOBS, 0, 0, 0)


async def test_a_failover_behind_haproxy_loses_nothing_either(tmp_path: Path) -> None:
    found = await under_load(tmp_path / "haproxy", planned, SAFE, behind_haproxy=True)
    sys.stdout.write(f"HAProxy: {dict(found)}\n")
    assert (found["accepted"], found["lost"], found["paid twice"], found["failed"]) == (JOBS, 0, 0, 0)


async def under_load(
    folder: Path, kind: Kind, variables: dict[str, str], *, behind_haproxy: bool = False
) -> Counter[str]:
    """What became of the jobs."""
    folder.mkdir()  # noqa: ASYNC240
    with (
        Replicated(folder / "redis", replicas=REPLICAS) as redis,
        redis.through_haproxy() if behind_haproxy else nullcontext(redis.url) as url,
        Stack(url, folder, options=ANSWERS, variables={**UNHURRIED, **variables}) as stack,
    ):
        for _ in range(2):
            stack.worker()
        async with stack.client() as client:
            names = [f"job-{number}" for number in range(JOBS)]
            accepted: list[str] = []
            producing = asyncio.gather(*(produce(client, names[n::AT_ONCE], accepted) for n in range(AT_ONCE)))
            await until(partial(reached, accepted, JOBS // 3), what="a third of the jobs is accepted")
            before = redis.master
            await asyncio.to_thread(kind, redis)
            await producing
            await asyncio.to_thread(wait_until, lambda: redis.master not in (0, before), what="another master")
            found = Counter([await end_of(client, name) for name in names])
        found.update(accepted=len(accepted), **{"paid twice": stack.ledger()["totals"]["unless"]["repeated_submits"]})
        return found


async def reached(accepted: list[str], number: int) -> bool:
    return len(accepted) >= number


async def produce(client: StoreClient, names: list[str], accepted: list[str]) -> None:
    """As a producer that must not lose a job: what was not confirmed is enqueued again under its id."""
    for name in names:
        while True:
            try:
                await client.enqueue(query(f"{name} ", targets=["file:jobs.jsonl"]), job_id=name)
                break
            except StoreUnavailable:
                await asyncio.sleep(0.1)
        accepted.append(name)
        await asyncio.sleep(0.2)


async def end_of(client: StoreClient, name: str) -> str:
    """The state in which a job is closed; "held", or "lost"."""

    async def settled() -> str:
        try:
            job = await client.job(name)
            held = not job.closed and job.state is JobState.UNCERTAIN
            return "held" if held and await is_held(client, name) else job.state.value if job.closed else ""
        except JobNotFound:
            return "lost"
        except StoreUnavailable:
            return ""

    return str(await until(settled, what=f"{name} is closed or held"))


async def is_held(client: StoreClient, name: str) -> bool:
    return "held" in [entry.event for entry in await client.timeline(name)]
