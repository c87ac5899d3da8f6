"""Redis answers and refuses what writes, for a while: no answer is thrown away, nothing is paid twice, and the log
says it once. Protected by worker/store/outages.py, which tells outages from refusals for good."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from outwait.worker.local.embedded import EmbeddedRedis, free_port
from outwait.worker.model.jobs import JobState
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.health import PROBE_EVERY
from tests.faults.test_redis_away import SHORT
from tests.patience import PATIENCE, until, wait_until
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


@pytest.mark.parametrize(("refuse", "outage"), REFUSALS, ids=lambda one: str(getattr(one, "__name__", one)))
async def test_while_writes_are_refused_the_web_process_and_doctor_say_what_it_is(
    tmp_path: Path, refuse: Refuse, outage: StoreOutage
) -> None:
    folder = tmp_path / "redis"
    with (
        EmbeddedRedis(folder) as redis,
        Redis.from_url(redis.url, decode_responses=True) as admin,
        Stack(redis.url, tmp_path) as stack,
    ):
        await asyncio.to_thread(stack.web)
        connection = Connection(stack.settings)
        key = await Access(connection).create("ada", set(Scope))
        await connection.close()
        headers = {"Authorization": f"Bearer {key.text}"}
        async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE) as web:
            assert (await web.get("/readyz")).status_code == 200
            known = (await web.post("/v1/jobs", json=query().model_dump())).json()["id"]
            allow = await asyncio.to_thread(refuse, admin, folder)
            try:
                await asyncio.sleep(PROBE_EVERY)
                for answer in (await web.get("/readyz"), await web.post("/v1/jobs", json=query().model_dump())):
                    problem = answer.json()
                    assert (answer.status_code, problem["code"]) == (503, "store_unavailable"), answer.text
                    assert outage.summary in problem["detail"]
                    assert "Retry-After" in answer.headers
                if outage not in (StoreOutage.BUSY, StoreOutage.DISK):  # which refuse PING too
                    assert (await web.get(f"/v1/jobs/{known}")).status_code == 200
                doctor = await asyncio.to_thread(stack.run, "doctor", "--no-providers", "--json")
            finally:
                await asyncio.to_thread(allow)
            await until(partial(is_ready, web), what="the web process is ready again")
            assert (await web.post("/v1/jobs", json=query().model_dump())).status_code == 201
        findings = {finding["subject"]: finding for finding in json.loads(doctor.stdout)}
        about = findings.get("writes") or findings["redis"]
        assert (about["level"], about["advice"]) == ("error", outage.advice)
        assert outage.summary in about["message"]
        assert doctor.returncode == 1
        lines = [line for line in stack.logs("web").splitlines() if " WARNING " in line or " ERROR " in line]
        assert [line.split()[3] for line in lines] == ["store-unavailable", "store-back"], "\n".join(lines)
        assert "probe" not in [key.partition("}:")[2] for key in admin.keys("*")]


async def is_ready(web: httpx.AsyncClient) -> bool:
    return (await web.get("/readyz")).status_code == 200


async def submitted(stack: Stack, number: int) -> bool:
    totals = stack.ledger()["totals"].get("unless")
    return bool(totals) and totals["requests"]["submit"] >= number
