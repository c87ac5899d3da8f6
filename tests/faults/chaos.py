"""Chaos: workers and Redis are struck at random under a load of faulty jobs; at the end the books must balance.

    python -m tests.faults.chaos --minutes 10 --seed 1

The jobs, their faults and the blows come from the seed, so that a run can be repeated; how they meet in time cannot.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from celery import Celery
from kombu.exceptions import OperationalError

from outwait.client.store import StoreClient
from outwait.worker.engine.messages import TASK
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.store.connection import Connection
from tests.faults import previous, provider_webhooks
from tests.faults.books import Books, Struck, balance
from tests.faults.plan import LONG, Blow, Kind, Plan, PlannedJob, Size, plan
from tests.stack import WEB, WORKER, Stack, until

Fsync = Literal["always", "everysec"]

INTERVAL = 5.0
"""Seconds between two polls of a job, which is more than a poll's lease: a crash must not shorten it."""

LEASE = 8.0
POLL_LEASE = 4.0
"""Seconds. On a busy machine a worker that nobody struck must get around to renew them, every third of their time."""

RATE, WINDOW = 200, 10
"""RingCentral's requests in a window of seconds, at the sandbox as in the settings."""

VARIABLES = {
    **{f"OUTWAIT_{step}__TIME_LIMIT": "5" for step in ("SUBMIT", "CALLBACK", "DELIVER")},
    **{f"OUTWAIT_{step}__LEASE": str(LEASE) for step in ("SUBMIT", "CALLBACK", "DELIVER")},
    **{f"OUTWAIT_{step}__ATTEMPTS": "1000" for step in ("SUBMIT", "POLL", "CALLBACK", "DELIVER")},
    **{f"OUTWAIT_PROVIDERS__{name}__POLL_EVERY": str(INTERVAL) for name in ("UNLESS", "ELEVATEAI", "RINGCENTRAL")},
    "OUTWAIT_POLL__TIME_LIMIT": "3",
    "OUTWAIT_POLL__LEASE": str(POLL_LEASE),
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": str(RATE),
    "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_WINDOW": str(WINDOW),
    "OUTWAIT_PROVIDERS__RINGCENTRAL__SAFETY_POLL_EVERY": "8",
    "OUTWAIT_INTAKE__LEASE": "5",
    "OUTWAIT_WORKER__GRACE": "5.5",
}
OPTIONS = {"poll_minimum": INTERVAL, "heavy_limit": RATE, "window": WINDOW, "penalty": 2}

WRONG_CLOCK = """
import os, time
skew, right = float(os.environ.get("CHAOS_SKEW", "0")), time.time
time.time = lambda: right() + skew
"""
"""`sitecustomize` of the workers."""


class Chaos:
    """One run over one stack.

    Args:
        stack: with its sandbox, and no workers yet.
        server: the stack's Redis.
        made: what to do.
        seed: of what is done to Celery's messages.
        fsync: `everysec`: a kill of Redis also takes the last second of its file away, as a power cut may.
    """

    def __init__(self, stack: Stack, server: EmbeddedRedis, made: Plan, seed: int, fsync: Fsync) -> None:
        self.struck = Struck()
        self._stack, self._server, self._plan, self._fsync = stack, server, made, fsync
        self._rng = Random(seed + 1)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._frozen: set[int] = set()
        self._others: set[asyncio.Task[None]] = set()
        self._sizes: list[tuple[float, Path, int]] = []
        self._redis = asyncio.Lock()
        self._previous = previous.checkout(stack.folder / "previous")
        (stack.folder / "sitecustomize.py").write_text(WRONG_CLOCK)

    async def run(self, size: Size) -> Books:
        """Load and blows; then the drain, and the books."""
        self._web = self._stack.web()
        self._workers = [self._hire(0, old=number == 1) for number in range(size.workers)]
        self._began = time.monotonic()
        meddling = [asyncio.create_task(self._meddle()), asyncio.create_task(self._watch_file())]
        await asyncio.gather(self._load(), self._strike())
        for task in meddling:
            task.cancel()
        await asyncio.gather(*meddling, return_exceptions=True)
        while self._others:
            await asyncio.gather(*self._others)
        async with self._stack.client() as client:
            ended = time.monotonic()
            await self._drained(client)
            books = await balance(self._stack, client, self._plan, self.struck)
            books.figures["seconds of load and faults"] = round(ended - self._began)
            books.figures["seconds until nothing changed any more"] = round(time.monotonic() - ended)
            return books

    async def _at(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, self._began + moment - time.monotonic()))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def _hire(self, skew: float, *, old: bool) -> subprocess.Popen[bytes]:
        if not old or self._previous is None:
            return self._stack.start(WORKER, "worker", CHAOS_SKEW=str(skew))
        self.struck.old += 1
        without = previous.without(self._stack.variables)
        return self._stack.start(previous.WORKER, "old", code=self._previous, CHAOS_SKEW=str(skew), **without)

    async def _load(self) -> None:
        """Two producers: one that writes to the store, and one that knows nothing but Celery."""
        url = self._stack.variables["OUTWAIT_REDIS_URL"]
        producer = Celery("chaos", broker=url, set_as_current=False)
        async with self._stack.client() as client:
            for group in _groups(self._plan.jobs):
                await self._at(group[-1].at)
                for job in group:
                    await self._until_accepted(client, producer, job)
        producer.close()

    async def _until_accepted(self, client: StoreClient, producer: Celery, job: PlannedJob) -> None:
        """What is not acknowledged is sent again, under the same id, as a producer should."""
        while job.id not in self.struck.accepted:
            try:
                if job.by_celery:
                    await asyncio.to_thread(self._send, producer, job)
                else:
                    await client.enqueue(job.request, job_id=job.id)
                self.struck.accepted[job.id] = time.time()
            except (StoreUnavailable, OperationalError, OSError):
                await asyncio.sleep(0.1)

    def _send(self, producer: Celery, job: PlannedJob) -> None:
        kwargs = job.request.model_dump(exclude_defaults=True)
        queue = self._stack.variables["OUTWAIT_INTAKE__QUEUE"]
        producer.send_task(TASK, kwargs=kwargs, task_id=job.id, queue=queue, retry=False, ignore_result=True)

    async def _strike(self) -> None:
        for blow in self._plan.blows:
            await self._at(blow.at)
            match blow.kind:
                case Kind.KILL:
                    await self._replace(blow, signal.SIGKILL)
                case Kind.STOP:
                    self._aside(self._replace(blow, signal.SIGTERM))
                case Kind.FREEZE:
                    self._aside(self._freeze(blow))
                case Kind.REDIS_KILL | Kind.REDIS_RESTART:
                    self._aside(self._redis_out(blow))
                case Kind.WEB_KILL:
                    self._kill_web(blow)

    def _done(self, blow: Blow, began: float) -> None:
        self.struck.blows.append((blow, began, time.time()))

    async def _replace(self, blow: Blow, how: signal.Signals) -> None:
        began, worker = time.time(), self._workers[blow.worker]
        self._workers[blow.worker] = self._hire(blow.skew, old=blow.previous)
        worker.send_signal(how)
        if worker.pid in self._frozen:
            worker.send_signal(signal.SIGCONT)
        await asyncio.to_thread(worker.wait, 30)
        self._done(blow, began)

    def _kill_web(self, blow: Blow) -> None:
        began = time.time()
        self._stack.kill(self._web)
        self._web = self._stack.start(WEB, "web")
        self._done(blow, began)

    async def _freeze(self, blow: Blow) -> None:
        began, worker = time.time(), self._workers[blow.worker]
        worker.send_signal(signal.SIGSTOP)
        self._frozen.add(worker.pid)
        await asyncio.sleep(blow.length)
        with suppress(ProcessLookupError):
            worker.send_signal(signal.SIGCONT)
        self._frozen.discard(worker.pid)
        self._done(blow, began)

    async def _redis_out(self, blow: Blow) -> None:
        async with self._redis:
            began = time.time()
            if blow.kind is Kind.REDIS_KILL and self._server.pid:
                os.kill(self._server.pid, signal.SIGKILL)
            await asyncio.to_thread(self._server.stop)
            if blow.kind is Kind.REDIS_KILL and self._fsync == "everysec":
                self._cut(began)
            await asyncio.sleep(blow.length)
            await asyncio.to_thread(self._server.start)
            self._done(blow, began)

    async def _watch_file(self) -> None:
        """How long the append-only file was, moment by moment."""
        while True:
            file = self._file()
            if file:
                self._sizes = [*self._sizes[-40:], (time.time(), file, file.stat().st_size)]
            await asyncio.sleep(0.1)

    def _file(self) -> Path | None:
        files = sorted(
            (self._stack.folder / "redis" / "appendonlydir").glob("*.incr.aof"), key=lambda f: f.stat().st_mtime
        )
        return files[-1] if files else None

    def _cut(self, killed: float) -> None:
        """The file loses its last second, as a power cut may have it; a kill of the process alone loses nothing."""
        file = self._file()
        kept = [(at, size) for at, path, size in self._sizes if path == file and at <= killed - 1]
        if file and kept:
            at, size = kept[-1]
            self.struck.cuts.append((at, killed, file.stat().st_size - size))
            os.truncate(file, size)

    async def _meddle(self) -> None:
        """Take messages of the steps away from Celery: some are gone, some come twice, some after their lease."""
        connection = Connection(self._stack.settings)
        try:
            while True:
                await asyncio.sleep(self._rng.uniform(0.1, 0.8))
                with suppress(StoreUnavailable):
                    await self._take_one(connection)
        finally:
            await connection.close()

    async def _take_one(self, connection: Connection) -> None:
        queues = [*self._stack.settings.step_queues.values()]
        self._rng.shuffle(queues)
        what = self._rng.choice([*self.struck.messages])
        async with connection.translated():
            popped = await connection.redis.brpop(queues, timeout=1)
            if not popped:
                return
            queue, message = popped
            if what == "doubled":
                await connection.redis.rpush(queue, message, message)
        if what == "late":
            self._aside(self._bring_back(queue, message, self._rng.uniform(0.5, 5)))
        self.struck.messages[what] += 1

    async def _bring_back(self, queue: bytes, message: bytes, after: float) -> None:
        await asyncio.sleep(after)
        connection = Connection(self._stack.settings)
        with suppress(StoreUnavailable):
            async with connection.translated():
                await connection.redis.lpush(queue, message)
        await connection.close()

    async def _drained(self, client: StoreClient) -> None:
        """Nothing moves any more: every lane but those of held jobs is empty, and every message was taken in."""

        async def empty() -> bool:
            try:
                counts = await client.counts()
                known = sum(sum(states.values()) for states in counts.values())
                lanes = await client.lanes()
            except StoreUnavailable:
                return False
            rest = [lane for lane in lanes if lane.lane.step and lane.waiting + lane.leased]
            return not rest and (known >= len(self.struck.accepted) or bool(self.struck.cuts))

        async def webhooks_sent() -> bool:
            return provider_webhooks.all_sent(await asyncio.to_thread(self._stack.ledger), self._plan)

        with suppress(AssertionError):  # the books tell what is left
            await until(empty)
            await until(webhooks_sent)


def _groups(jobs: list[PlannedJob]) -> Iterable[list[PlannedJob]]:
    """A handful at once: bursts, as producers send them."""
    return (jobs[start : start + 4] for start in range(0, len(jobs), 4))


async def run(folder: Path, size: Size, seed: int, fsync: Fsync) -> Books:
    """One run in a folder of its own; the figures."""
    with (
        EmbeddedRedis(folder / "redis", fsync=fsync) as server,
        Stack(server.url, folder, options={**OPTIONS, "seed": seed}, variables=VARIABLES) as stack,
    ):
        return await Chaos(stack, server, plan(seed, size), seed, fsync).run(size)


def main() -> int:
    """The long run, of any length."""
    parser = argparse.ArgumentParser(description="Strike workers and Redis under load, and balance the books.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--fsync", choices=["always", "everysec"], default="always")
    asked = parser.parse_args()
    share = asked.minutes * 60 / LONG.seconds
    scaled = {
        name: max(1, round(getattr(LONG, name) * share)) for name in ("jobs", "kills", "stops", "freezes", "web_kills")
    }
    size = replace(LONG, seconds=asked.minutes * 60, **scaled)
    folder = Path(tempfile.mkdtemp(prefix="outwait-chaos-"))
    sys.stdout.write(f"seed {asked.seed}, {asked.minutes:g} minutes, appendfsync {asked.fsync}, in {folder}\n")
    books = asyncio.run(run(folder, size, asked.seed, asked.fsync))
    sys.stdout.write(books.text())
    return len(books.wrong) > 0


if __name__ == "__main__":
    raise SystemExit(main())
