"""A worker is killed with -9 at an exact point of a step; the next one brings every job to its end, once.

Each has its own wire to Redis: a command is stopped there, or a request hangs at the sandbox; then comes the kill.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from celery import Celery

from outwait.client.store import StoreClient
from outwait.worker.engine.lane_policies import SMALL_BATCH
from outwait.worker.model.jobs import DeliveryState, Job, JobState, TimelineEntry
from outwait.worker.store.connection import Connection
from tests.faults.wire import Point, Stop, Wire
from tests.stack import LEASES, WORKER, Stack, closed, ended, query, until

LIMIT, LEASE = 8.0, 10.0
"""Seconds. Long enough for a busy machine: only what was killed outlives its lease."""

HANDLERS = """
import asyncio, pathlib
from outwait import handler

HERE = pathlib.Path(__file__).parent

@handler("slow")
async def slow(envelope):
    with (HERE / "handled.txt").open("a") as file:
        file.write(envelope.delivery_id + "\\n")
    while (HERE / f"hold-{envelope.job_id}").exists():
        await asyncio.sleep(0.02)
"""

BEGIN = {"submit": "submit:unless", "poll": "poll:unless", "callback": "callback", "deliver": "deliver:slow"}
DONE = {"submit": b"\xa9submitted", "poll": b"\xa3end", "callback": b"\xa6fanout", "deliver": b"\xa9delivered"}


class Crew:
    """One worker at a time; the next one takes over when it is killed."""

    def __init__(self, stack: Stack, redis_url: str) -> None:
        self.stack = stack
        self._redis_url = redis_url
        self._wires: list[Wire] = []
        self.hire()

    def hire(self, **variables: str) -> None:
        namespace = self.stack.variables["OUTWAIT_NAMESPACE"]
        self._wires.append(Wire(self._redis_url, namespace).__enter__())
        self.worker: subprocess.Popen[bytes] = self.stack.worker(OUTWAIT_REDIS_URL=self.wire.url, **variables)

    def kill(self, **variables: str) -> None:
        self.stack.kill(self.worker)
        self.hire(**variables)

    @property
    def wire(self) -> Wire:
        return self._wires[-1]

    def leave(self) -> None:
        for wire in self._wires:
            wire.__exit__(None, None, None)


@pytest.fixture(scope="module")
def crew(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "killed_handlers.py").write_text(HANDLERS)
    steps = ("SUBMIT", "POLL", "CALLBACK", "DELIVER")
    times = {f"OUTWAIT_{step}__TIME_LIMIT": str(LIMIT) for step in steps}
    times |= {f"OUTWAIT_{step}__LEASE": str(LEASE) for step in steps}
    variables = {**times, "OUTWAIT_INTAKE__LEASE": str(LEASE), "OUTWAIT_HANDLERS__MODULES": "killed_handlers"}
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
        crew = Crew(stack, redis_url)
        yield crew
        crew.leave()


async def enqueue(client: StoreClient, name: str, **marker: object) -> str:
    text = f"{name} sandbox:{json.dumps(marker)}" if marker else name
    return (await client.enqueue(query(text, targets=["slow"]), job_id=name)).job_id


async def reached(stop: Stop) -> None:
    async def look() -> bool:
        return stop.reached.is_set()

    await until(look, what=f"a command with {stop.marks}")


async def warmed(client: StoreClient, name: str) -> None:
    """One job through the whole of it, so that Redis knows the scripts by their names."""
    await closed(client, await enqueue(client, f"{name}-warm"))


async def finished(crew: Crew, client: StoreClient, job_id: str, *, submits: int = 1) -> None:
    """The job came to its one end, was paid for once, and was delivered."""
    job = await closed(client, job_id)
    story = Counter(entry.event for entry in await client.timeline(job_id))
    assert job.state is JobState.SUCCEEDED, job.error
    assert (job.ledger.submits, len(crew.stack.seen(f"{job_id} "))) == (submits, submits), story
    assert [delivery.state for delivery in await client.deliveries(job_id)] == [DeliveryState.DELIVERED]
    assert {story[event] for event in ("submitted", "succeeded", "callback", "delivered", "closed")} == {1}, story
    handled = (crew.stack.folder / "handled.txt").read_text().split()
    assert {line for line in handled if line.startswith(f"{job_id}#")} == {f"{job_id}#1"}


async def nothing_left(client: StoreClient) -> None:
    """No job stands in any lane, but for those that are held for a person."""
    lanes = [lane for lane in await client.lanes() if lane.lane.step]
    assert [lane for lane in lanes if lane.due_now + lane.waiting + lane.leased] == []


@pytest.mark.parametrize("step", ["poll", "callback", "deliver"])
async def test_before_the_record_the_step_is_done_again(crew: Crew, step: str) -> None:
    """Protected by worker/store/lua/claim.lua `put_back`: what outlived its lease is due again."""
    async with crew.stack.client() as client:
        await warmed(client, f"record-{step}")
        stop = crew.wire.stop(Point.BEFORE, "record", DONE[step], f"record-{step}-1")
        job_id = await enqueue(client, f"record-{step}-1", duration=0)
        await reached(stop)
        crew.kill()
        await finished(crew, client, job_id)


@pytest.mark.parametrize("step", DONE)
async def test_after_the_record_nothing_is_done_twice(crew: Crew, step: str) -> None:
    """Protected by worker/store/lua/record/jobs.lua `move`: the job leaves its lease when its outcome is written."""
    async with crew.stack.client() as client:
        await warmed(client, f"recorded-{step}")
        stop = crew.wire.stop(Point.AFTER, "record", DONE[step], f"recorded-{step}-1")
        job_id = await enqueue(client, f"recorded-{step}-1", duration=0)
        await reached(stop)
        crew.kill()
        await finished(crew, client, job_id)
        assert (await client.job(job_id)).ledger.deliveries == 1
        await nothing_left(client)


@pytest.mark.parametrize("point", [Point.BEFORE, Point.AFTER])
async def test_while_a_message_is_taken_in(crew: Crew, redis_url: str, point: Point) -> None:
    """Protected by worker/store/lua/take_in.lua: a message is leased, not popped, until its job is recorded."""
    name = f"message-{point.name.lower()}"
    stop = crew.wire.stop(point, "enqueue", name)
    crew.wire.stop(Point.BEFORE, "begin", BEGIN["submit"], name)  # a kill in the submit is another test's
    async with crew.stack.client() as client:
        await warmed(client, f"warm-{name[8:]}")
        request = query(f"{name} ", targets=["slow"]).model_dump(exclude_unset=True)
        with Celery("producer", broker=redis_url, set_as_current=False) as producer:
            queue = crew.stack.variables["OUTWAIT_INTAKE__QUEUE"]
            producer.send_task("tasks.submit", kwargs=request, task_id=name, queue=queue)
        await reached(stop)
        crew.kill()

        async def there() -> bool:
            return name in [job.id for job in (await client.jobs()).jobs]

        await until(there)
        await finished(crew, client, name)


async def test_before_and_in_the_request(crew: Crew) -> None:
    """Protected by worker/store/lua/begin.lua: a claim whose step has not begun leaves no intent behind."""
    async with crew.stack.client() as client:
        await warmed(client, "begin")
        jobs = []
        for step, lane in BEGIN.items():
            stop = crew.wire.stop(Point.BEFORE, "begin", lane, f"begin-{step}-1")
            jobs.append(await enqueue(client, f"begin-{step}-1", duration=0))
            await reached(stop)
        jobs.append(await enqueue(client, "asked", duration=0, faults=[{"fault": "hang", "on": "poll"}]))
        (crew.stack.folder / "hold-handling").touch()
        jobs.append(await enqueue(client, "handling", duration=0))
        await until(lambda: polled(crew.stack, "asked"))
        await until(lambda: handling(crew.stack.folder, "handling"))
        crew.kill()
        (crew.stack.folder / "hold-handling").unlink()
        for job_id in jobs:
            await finished(crew, client, job_id)


async def polled(stack: Stack, text: str) -> bool:
    return any(job["polls"]["count"] for job in stack.seen(f"{text} "))


async def handling(folder: Path, job_id: str) -> bool:
    return f"{job_id}#1" in (folder / "handled.txt").read_text()


async def asked(stack: Stack, submits: int) -> bool:
    totals = stack.ledger()["totals"].get("unless")
    return totals is not None and totals["requests"]["submit"] >= submits


@pytest.mark.parametrize("policy", ["resubmit", "fail", "hold"])
async def test_a_submit_that_left_is_never_repeated_blindly(crew: Crew, policy: str) -> None:
    """Protected by worker/engine/leases.py `permit`: the intent is written before the request is sent."""
    stack = crew.stack
    names = [f"{policy}-{where}" for where in ("intent", "arriving", "arrived", "answered")]
    async with stack.client() as client:
        await warmed(client, policy)
        intent = crew.wire.stop(Point.AFTER, "renew", b"\xa6intent\xc3", names[0])
        before = stack.ledger()["totals"]["unless"]["requests"]["submit"]
        await enqueue(client, names[0], duration=0)
        await reached(intent)
        await enqueue(client, names[1], duration=0, faults=[{"fault": "hang", "on": "submit"}])
        await enqueue(client, names[2], duration=0, faults=[{"fault": "hang_after", "on": "submit"}])
        answered = crew.wire.stop(Point.BEFORE, "record", DONE["submit"], names[3])
        await enqueue(client, names[3], duration=0)
        await until(lambda: asked(stack, before + 3))
        await reached(answered)
        crew.kill(OUTWAIT_PROVIDERS__UNLESS__UNCERTAIN=policy)
        paid = [len(stack.seen(f"{name} ")) for name in names]
        assert paid == [0, 0, 1, 1]
        for name, before_it in zip(names, paid, strict=True):
            await settled(client, name, policy)
            again = 1 if policy == "resubmit" else 0
            assert len(stack.seen(f"{name} ")) == before_it + again
            assert (await client.job(name)).ledger.submits == 1 + again, "what left, perhaps, is counted too"


async def test_a_kill_costs_seconds(redis_url: str, connection: Connection, tmp_path: Path) -> None:
    """Protected by the default leases (config/groups.py): each job of the lost worker is under way again in 20 s.

    The times are those of timelines: Redis's own. The worker has claimed everything and runs one batch at a time, so
    whatever is held was in that batch.
    """
    names = [f"many-{number}" for number in range(100)]
    options, default = {"behaviour": {"duration": 0.3, "latency": 0.3}}, dict.fromkeys(LEASES, "")
    with Stack(redis_url, tmp_path, options=options, variables=default) as stack:
        other = stack.start(WORKER, "other")
        async with stack.client() as client:
            await until(lambda: ready(stack, "other"))
            with stack.frozen(other):  # so that it has none of the jobs
                killed_worker = stack.worker(OUTWAIT_WORKER__CONCURRENCY="1", OUTWAIT_WORKER__HANDOFF="60")
                await client.enqueue_many([(query(f"{name} "), name) for name in names])
                await until(lambda: asked(stack, 20))
            stack.kill(killed_worker)
            killed = await connection.now_ms() / 1000
            jobs = {name: await at_rest(client, name) for name in names}
            stories = {name: await client.timeline(name) for name in names}
        waited = [again(story) - killed for story in stories.values() if "lease-ended" in events(story)]
        assert waited, "the killed worker had none of the jobs"
        assert max(waited) < 20
        assert {job.state for job in jobs.values()} <= {JobState.SUCCEEDED, JobState.UNCERTAIN}
        doubtful = [name for name, job in jobs.items() if job.state is JobState.UNCERTAIN]
        assert len(doubtful) <= SMALL_BATCH
        assert stack.ledger()["totals"]["unless"]["repeated_submits"] == 0


def events(story: Sequence[TimelineEntry]) -> list[str]:
    return [entry.event for entry in story]


def again(story: Sequence[TimelineEntry]) -> float:
    """When the job of a lost worker went on: it was sent, asked for or held."""
    ended = events(story).index("lease-ended")
    return next(entry.at for entry in story[ended + 1 :] if entry.event != "uncertain")


async def ready(stack: Stack, name: str) -> bool:
    return " ready." in stack.logs(name)


async def at_rest(client: StoreClient, name: str) -> Job:
    """The job when nothing is left to do for it, but for a person."""

    async def look() -> Job | None:
        job = await client.job(name)
        held = job.state is JobState.UNCERTAIN and job.due is None
        return job if job.closed or held else None

    found: Job = await until(look, what=f"job {name} is closed or held")
    return found


async def settled(client: StoreClient, name: str, policy: str) -> None:
    if policy == "hold":

        async def held() -> bool:
            return "held" in [entry.event for entry in await client.timeline(name)]

        await until(held)
        assert (await client.job(name)).state is JobState.UNCERTAIN
        return
    job = await ended(client, name)
    assert job.state is (JobState.SUCCEEDED if policy == "resubmit" else JobState.FAILED), job.error
    story = [entry.event for entry in await client.timeline(name)]
    assert story.count("uncertain") == 1
    if policy == "fail":
        assert job.error is not None
        assert job.error.code == "uncertain"
