"""Redis answers and refuses what writes, for a while: no answer is thrown away, nothing is paid twice, and the log
says it once. Protected by worker/store/outages.py, which tells outages from refusals for good."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from outwait.worker.local.embedded import EmbeddedRedis, free_port
from outwait.worker.model.jobs import JobState
from outwait.worker.model.store_outages import StoreOutage
from tests.faults.test_redis_away import SHORT
from tests.patience import until, wait_until
from tests.stack import Stack, closed, query

JOBS = 60

LATENCY = 4.0
"""Seconds until a submit is answered: time for all of them to leave, and then for writes to be refused."""

LINES = 6
"""Of warnings and errors that one worker may write about an outage: down, up, and what Celery says of the broker."""


def without_replicas(admin: Redis, _folder: Path) -> Callable[[], object]:
    admin.config_set("min-replicas-to-write", 1)
    return lambda: admin.config_set("min-replicas-to-write", 0)


def with_a_full_disk(admin: Redis, folder: Path) -> Callable[[], object]:
    (folder / "dump.rdb").mkdir()  # no snapshot can take this name
    admin.config_set("save", "3600 1")
    with suppress(RedisError):
        admin.bgsave()
    wait_until(lambda: last_snapshot(admin) == "err", what="the snapshot failed")

    def mended() -> None:
        (folder / "dump.rdb").rmdir()
        admin.bgsave()
        wait_until(lambda: last_snapshot(admin) == "ok", what="a snapshot")

    return mended


def last_snapshot(admin: Redis) -> str:
    return str(admin.info("persistence")["rdb_last_bgsave_status"])


def as_a_replica(admin: Redis, _folder: Path) -> Callable[[], object]:
    admin.replicaof("127.0.0.1", free_port())
    return lambda: admin.replicaof("NO", "ONE")


def without_memory(admin: Redis, _folder: Path) -> Callable[[], object]:
    admin.config_set("maxmemory", 1)
    return lambda: admin.config_set("maxmemory", 0)


def with_a_long_script(admin: Redis, _folder: Path) -> Callable[[], object]:
    admin.config_set("lua-time-limit", 50)

    def spin() -> None:
        other = Redis(connection_pool=admin.connection_pool)
        with suppress(RedisError):  # it is killed
            other.eval("while true do end", 0)

    thread = threading.Thread(target=spin)
    thread.start()

    def killed() -> None:
        admin.script_kill()
        thread.join()

    return killed


Refuse = Callable[[Redis, Path], Callable[[], object]]
REFUSALS: list[tuple[Refuse, StoreOutage]] = [
    (without_replicas, StoreOutage.NO_REPLICAS),
    (with_a_full_disk, StoreOutage.DISK),
    (as_a_replica, StoreOutage.READ_ONLY),
    (without_memory, StoreOutage.OUT_OF_MEMORY),
    (with_a_long_script, StoreOutage.BUSY),
]


@pytest.mark.parametrize(("refuse", "outage"), REFUSALS, ids=lambda one: str(getattr(one, "__name__", one)))
async def test_while_writes_are_refused_every_answer_is_kept(
    tmp_path: Path, refuse: Refuse, outage: StoreOutage
) -> None:
    options = {"behaviour": {"duration": 0.5, "latency": LATENCY}}
    folder = tmp_path / "redis"
    with (
        EmbeddedRedis(folder) as redis,
        Redis.from_url(redis.url, decode_responses=True) as admin,
        Stack(redis.url, tmp_path, options=options, variables=SHORT) as stack,
    ):
        workers = [stack.worker(), stack.worker()]
        async with stack.client() as client:
            names = [f"job-{number}" for number in range(JOBS)]
            await client.enqueue_many([(query(f"{name} ", targets=["file:jobs.jsonl"]), name) for name in names])
            await until(partial(submitted, stack, JOBS), what="all submits on their way")
            allow = await asyncio.to_thread(refuse, admin, folder)
            await asyncio.sleep(LATENCY + 2)  # every answer comes while nothing can be written
            during = stack.logs()
            await asyncio.to_thread(allow)
            stack.order(duration=0, latency=0)
            for name in names:
                job = await closed(client, name)
                assert (job.state, job.ledger.submits) == (JobState.SUCCEEDED, 1), job.error
                assert "held" not in [entry.event for entry in await client.timeline(name)]
        totals = stack.ledger()["totals"]["unless"]
        assert (totals["jobs"], totals["repeated_submits"]) == (JOBS, 0)
        assert during.count("store-unavailable") == len(workers)
        assert f"outage={outage.value}" in during
        wait_until(lambda: stack.logs().count("store-back") == len(workers), what="each worker says that it is over")
        lines = [line for line in stack.logs().splitlines() if " WARNING " in line or " ERROR " in line]
        assert len(lines) <= LINES * len(workers), "\n".join(lines)
        assert [worker.poll() for worker in workers] == [None] * len(workers)


async def submitted(stack: Stack, number: int) -> bool:
    totals = stack.ledger()["totals"].get("unless")
    return bool(totals) and totals["requests"]["submit"] >= number
