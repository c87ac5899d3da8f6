"""A producer's messages while workers are killed with -9: each id that was sent is a job, exactly once.

The long run: `OUTWAIT_LONG=1 pytest tests/faults/test_intake_kills.py -s` (docs/reliability.md has its figures).
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import JobState
from tests.stack import Stack, until

LONG = os.environ.get("OUTWAIT_LONG") == "1"
KILLS, EVERY, WORKERS = (200, 1.2, 3) if LONG else (10, 0.8, 2)
"""How often a worker is killed, the least seconds between two kills, and how many workers there are."""

PACE = 0.02 if LONG else 0.05
"""Seconds between two messages."""

SHORT = {
    f"OUTWAIT_{step}__{name}": value
    for step in ("SUBMIT", "POLL", "CALLBACK", "DELIVER")
    for name, value in (("TIME_LIMIT", "8"), ("LEASE", "10"), ("ATTEMPTS", "50"))
} | {"OUTWAIT_INTAKE__LEASE": "2", "OUTWAIT_INTAKE__BATCH": "20"}

PRODUCER = """
import os, sys, time
from celery import Celery

app = Celery("producer", broker=os.environ["OUTWAIT_REDIS_URL"])
number = 0
while True:
    name = f"sent-{number}"
    kwargs = {"provider": "unless", "operation": "query", "targets": ["file:sent.jsonl"],
              "params": {"query": name, "sessionId": "s", "visitorId": "v"}}
    app.send_task("tasks.submit", kwargs=kwargs, task_id=name, queue=os.environ["OUTWAIT_INTAKE__QUEUE"])
    number += 1
    print(name, flush=True)
    time.sleep(float(os.environ["PACE"]))
"""


async def test_no_message_is_lost_when_workers_are_killed(redis_url: str, tmp_path: Path) -> None:
    """Protected by worker/store/lua/take_in.lua: a message is leased, not popped, until its job is recorded.

    Here a kill meets that moment by chance; test_worker_killed.py stops a worker right there.
    """
    (tmp_path / "producer.py").write_text(PRODUCER)
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0.3}}, variables=SHORT) as stack:
        workers = [stack.worker() for _ in range(WORKERS)]
        producer = stack.start([sys.executable, str(tmp_path / "producer.py")], "producer", PACE=str(PACE))
        began = time.monotonic()
        async with stack.client() as client:
            await until(lambda: working(client))
            await killing(stack, workers)
            stack.kill(producer)
            sent = stack.logs("producer").split()
            await until(lambda: settled(client, len(sent)), what="every job is closed, or held")
            counts, jobs = (await client.counts())["unless"], await every(client)
        totals = stack.ledger()["totals"]["unless"]
        report(sent, counts, totals, time.monotonic() - began)
        assert set(sent) <= jobs.keys()
        # The producer may have been killed between sending and telling; nothing else is there.
        assert len(jobs) <= len(sent) + 1
        assert set(jobs.values()) <= {JobState.SUCCEEDED, JobState.UNCERTAIN}
        assert counts["succeeded"] > counts["uncertain"], "the load was carried"
        assert totals["repeated_submits"] == 0
        assert counts["succeeded"] <= totals["jobs"] <= counts["succeeded"] + counts["uncertain"]
        lines = (tmp_path / "results" / "sent.jsonl").read_text().splitlines()
        delivered = {json.loads(line)["job_id"] for line in lines}
        assert delivered == {name for name, state in jobs.items() if state is JobState.SUCCEEDED}


async def killing(stack: Stack, workers: list[subprocess.Popen[bytes]]) -> None:
    """Kill one worker after the other, each at a moment of chance, and start another in its place."""
    rng = random.Random(7)
    for number in range(KILLS):
        at = time.monotonic() + rng.uniform(0, 2) * EVERY
        await until(lambda at=at, number=number: due(at, stack, number + 1))
        victim = number % WORKERS  # the oldest
        stack.kill(workers[victim])
        workers[victim] = stack.worker()


async def due(moment: float, stack: Stack, number: int) -> bool:
    """Whether the moment has come, and so many workers have been ready: one that only starts meets nothing."""
    return time.monotonic() >= moment and stack.logs().count(" ready.") >= number


async def working(client: StoreClient) -> bool:
    """Whether the first job has ended."""
    return bool((await client.counts()).get("unless", {}).get("succeeded"))


async def settled(client: StoreClient, number: int) -> bool:
    """Whether that many jobs are there, and nothing is left to do but for a person."""
    counts = (await client.counts())["unless"]
    busy = [lane for lane in await client.lanes() if lane.lane.step]
    return sum(counts.values()) >= number and not any(lane.due_now + lane.waiting + lane.leased for lane in busy)


async def every(client: StoreClient) -> dict[str, JobState]:
    """Each job there is, and its state."""
    states: dict[str, JobState] = {}
    cursor = None
    while True:
        page = await client.jobs(limit=500, cursor=cursor)
        states |= {job.id: job.state for job in page.jobs}
        cursor = page.cursor
        if cursor is None:
            return states


def report(sent: list[str], counts: dict[str, int], totals: dict[str, int], seconds: float) -> None:
    sys.stdout.write(
        f"\n{KILLS} kills in {seconds:.0f} s; {len(sent)} messages sent; {counts['succeeded']} jobs succeeded, "
        f"{counts['uncertain']} are held as uncertain; {totals['jobs']} submits accepted, "
        f"{totals['repeated_submits']} repeated\n"
    )
