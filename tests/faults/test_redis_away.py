"""Redis stops, is killed, freezes, under load: no job is lost, none is paid for twice, workers go on by themselves."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.engine.clock import CHANGED_SETTLE, Clock
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.errors import OperatorError, StoreUnavailable
from outwait.worker.model.jobs import DeliveryState, JobRequest, JobState
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from tests.stack import WORKER, Stack, closed, query, until

SHORT = {
    f"OUTWAIT_{step}__{name}": value
    for step in ("SUBMIT", "POLL", "CALLBACK", "DELIVER")
    for name, value in (("TIME_LIMIT", "10"), ("LEASE", "12"))
} | {"OUTWAIT_SUBMIT__LEASE": "30", "OUTWAIT_INTAKE__LEASE": "2", "OUTWAIT_STORE__TIMEOUT": "3"}
AWAY = 7.0
"""Shorter than a submit's lease: an answer that waits for Redis is written in time."""

FROZEN = 5.0
"""Longer than OUTWAIT_STORE__TIMEOUT (what is asked meanwhile is given up), shorter than a lease."""


class Load:
    """A producer that goes on through outages: each id that it was told of is a job."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.sent: list[str] = []
        self._going = True

    async def run(self) -> None:
        number = 0
        async with self._stack.client() as client:
            while self._going:
                number += 1
                name = f"load-{number}"
                request = query(f"{name} ", targets=["file:load.jsonl"])
                await until(partial(self._enqueued, client, request, name))
                self.sent.append(name)

    async def _enqueued(self, client: StoreClient, request: JobRequest, name: str) -> bool:
        # The same id again is the same job: what was written before the reply was lost counts once.
        await asyncio.sleep(0.02)  # the pace of this producer
        with suppress(OperatorError):
            await client.enqueue(request, job_id=name)
            return True
        return False

    def stop(self) -> None:
        self._going = False


@asynccontextmanager
async def loaded(stack: Stack) -> AsyncIterator[Load]:
    load = Load(stack)
    task = asyncio.create_task(load.run())
    yield load
    load.stop()
    await task


async def more(load: Load, number: int) -> None:
    """Wait until so many more jobs have been enqueued."""
    wanted = len(load.sent) + number

    async def look() -> bool:
        return len(load.sent) >= wanted

    await until(look)


async def seconds(number: float) -> None:
    """An outage of so many seconds."""
    await asyncio.sleep(number)


def stopped(redis: EmbeddedRedis) -> Callable[[], object]:
    redis.stop()
    return redis.start


def killed(redis: EmbeddedRedis) -> Callable[[], object]:
    assert redis.pid
    os.kill(redis.pid, signal.SIGKILL)
    redis.stop()
    return redis.start


def frozen(redis: EmbeddedRedis) -> Callable[[], object]:
    pid = redis.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


async def test_an_outage_of_redis_under_load_loses_nothing(tmp_path: Path) -> None:
    """Protected by worker/engine/recorder.py `_write_all` and worker/engine/clock.py `_call`: both go on afterwards."""
    outages = [(stopped, AWAY), (killed, 0.5), (frozen, FROZEN)]
    with EmbeddedRedis(tmp_path / "redis", fsync="always") as redis:
        options = {"behaviour": {"duration": 0.5, "latency": 0.6}}
        with Stack(redis.url, tmp_path, options=options, variables=SHORT) as stack:
            workers = [stack.worker(), stack.worker()]
            async with loaded(stack) as load:
                async with stack.client() as client:
                    await more(load, 1)
                    await closed(client, load.sent[0])
                for begin, length in outages:
                    end = begin(redis)
                    if begin is stopped:
                        workers.append(stack.start(WORKER, "early"))  # it finds no Redis and waits for it
                    await seconds(length)
                    end()
                    await more(load, 50)
            async with stack.client() as client:
                for name in load.sent:
                    job = await closed(client, name)
                    assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1), job.error
                    assert [delivery.state for delivery in await client.deliveries(name)] == [DeliveryState.DELIVERED]
                assert sum((await client.counts())["unless"].values()) == len(load.sent)
            assert [worker.poll() for worker in workers] == [None] * 3
            assert "store-back" in stack.logs(), "outcomes waited for Redis"
            assert "ready." in stack.logs("early")
            totals = stack.ledger()["totals"]["unless"]
            assert (totals["jobs"], totals["repeated_submits"]) == (len(load.sent), 0)
    lines = (tmp_path / "results" / "load.jsonl").read_text().splitlines()
    assert {json.loads(line)["job_id"] for line in lines} == set(load.sent)


async def test_after_an_outage_outcomes_are_written_before_anything_is_claimed(tmp_path: Path) -> None:
    """Protected by worker/engine/clock.py `_settling`: leases ended, and an answered submit would seem uncertain."""
    sent: list[str] = []
    with EmbeddedRedis(tmp_path) as redis:
        settings = Settings(redis_url=redis.url, _env_file=None)
        connection = Connection(settings)
        clock = Clock(Lanes(connection), Policies(settings, build({})), lambda lane, _claims: sent.append(lane))
        async with StoreClient(settings) as client:
            await client.enqueue(query())
        redis.stop()
        with pytest.raises(StoreUnavailable):
            await clock.tick()
        redis.start()
        wait = await clock.tick()
        assert wait is not None
        assert 0 < wait <= CHANGED_SETTLE
        assert sent == []

        async def goes_on() -> bool:
            await clock.tick()
            return [str(lane) for lane in sent] == ["submit:unless"]

        await until(goes_on)
        await connection.close()


async def test_a_worker_that_holds_unacknowledged_messages_outlives_its_redis(tmp_path: Path) -> None:
    """Protected by worker/celery/transport.py `restore_unacked`: Celery 5.7's ends the worker with an error.

    Both threads wait for slow answers, so that the next message is taken and not yet acknowledged, and there is room to
    ask for one more: the outage meets that question.
    """
    variables = SHORT | {
        "OUTWAIT_WORKER__CONCURRENCY": "2",
        "OUTWAIT_WORKER__HANDOFF": "30",
        "OUTWAIT_POLL__TIME_LIMIT": "25",
        "OUTWAIT_POLL__LEASE": "40",
    }
    hang = json.dumps({"faults": [{"fault": "hang", "on": "poll", "seconds": 15}]})
    with EmbeddedRedis(tmp_path / "redis", fsync="always") as redis:
        options = {"behaviour": {"duration": 0}}
        with Stack(redis.url, tmp_path, options=options, variables=variables) as stack:
            worker = stack.worker()
            connection = Connection(stack.settings)
            async with stack.client() as client:
                for number, name in enumerate(("slow", "slower"), 1):
                    await client.enqueue(query(f"{name} sandbox:{hang}"), job_id=name)
                    await until(partial(polls, stack, number))
                await client.enqueue(query("next"), job_id="next")
                await until(lambda: connection.redis.hlen(f"{stack.settings.namespace}.unacked"))
                await connection.close()
                stopped(redis)()
                for name in ("slow", "slower", "next"):
                    job = await closed(client, name)
                    assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1), job.error
            assert worker.poll() is None


async def polls(stack: Stack, number: int) -> bool:
    totals = stack.ledger()["totals"].get("unless")
    return bool(totals) and totals["requests"]["poll"] >= number
