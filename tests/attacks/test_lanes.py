"""One tenant names thousands of targets, and another tenant's job and delivery come next.

A lane was made for each distinct target, names of handlers that nobody has included: one request of 520 KB held another
tenant's job for 386 s and `/metrics` for 15 s, and 220 KB became 8,000 requests at somebody else's server.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from outwait.client.store import StoreClient
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.errors import JobNotFound
from outwait.worker.model.jobs import DeliveryState, Job, JobState
from outwait.worker.store.access import Scope
from outwait.worker.store.store import Store
from tests.patience import PATIENCE
from tests.stack import Stack, closed, query, until

HANDLERS = """
from outwait import handler

@handler("crm")
def crm():
    pass
"""
JOBS, NAMES = 100, 20
"""Of one request, and of each of its jobs: 2,000 targets."""

PER_HOST = 8
"""What the operator of these tests allows a tenant to send to one host at once."""

PER_TENANT = 64
"""To all hosts."""


LONG = 20.0
"""Seconds that no other tenant's job takes longer, and no scrape: far more than either needs on a busy machine."""


SLOW = 0.6
"""Seconds that no command of Redis's takes: 30,000 deliveries took 1.3."""


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("lanes")
    (folder / "lane_handlers.py").write_text(HANDLERS)
    variables = {
        "OUTWAIT_HANDLERS__MODULES": "lane_handlers",
        "OUTWAIT_WEBHOOKS__SECRETS": "a-master-secret-with-32-characters",
        "OUTWAIT_WEBHOOKS__SCHEDULE": ",".join(["0.1"] * 4),
        "OUTWAIT_OUTBOUND__ALLOW": "127.0.0.0/8",
        "OUTWAIT_WEB__TARGETS": "http://127.0.*,[a-z]*",
        "OUTWAIT_DELIVER__PER_HOST": str(PER_HOST),
        "OUTWAIT_DELIVER__PER_TENANT": str(PER_TENANT),
    }
    options = {"behaviour": {"duration": 0}}
    with Stack(redis_server.url, folder, options=options, variables=variables) as stack:
        stack.worker()
        stack.web()
        yield stack


@pytest.fixture
async def redis(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as redis:
        yield redis


class Receiver:
    """A server of somebody else's. It keeps each request until it is let go."""

    def __init__(self, *, status: int = 200) -> None:
        self.status = status
        self.got = 0
        self.at_once = 0
        self.most_at_once = 0
        self.open = asyncio.Event()
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self.server = TestServer(app, host="0.0.0.0")  # 127.0.0.0/8 is this machine

    def url(self, path: str = "hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server.port}/{path}"

    async def _take(self, _request: web.Request) -> web.Response:
        self.got += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            return web.Response(status=self.status)
        finally:
            self.at_once -= 1


@pytest.fixture
async def attacked() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.server.start_server()
    yield receiver
    receiver.open.set()
    await receiver.server.close()


@pytest.fixture
async def others() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.open.set()
    await receiver.server.start_server()
    yield receiver
    await receiver.server.close()


async def time_of_anothers_job(client: StoreClient, receiver: Receiver) -> float:
    """Seconds in which another tenant's job is done, and delivered to its handler and to its own server."""
    began = time.monotonic()
    job_id = (await client.enqueue(query("mine", tenant="acme", targets=["crm", receiver.url()]))).job_id
    assert (await closed(client, job_id)).state is JobState.SUCCEEDED
    states = [each.state for each in await client.deliveries(job_id)]
    assert states == [DeliveryState.DELIVERED] * 2
    return time.monotonic() - began


async def posted(stack: Stack, jobs: list[dict[str, object]], tenant: str = "mallory") -> httpx.Response:
    """The answer to one request of the attacker's."""
    async with Store.open(stack.settings) as store:
        key = (await store.access.create(tenant, [Scope.ENQUEUE], tenant)).text
    async with httpx.AsyncClient(base_url=stack.web_url, timeout=PATIENCE) as http:
        return await http.post("/v1/jobs", json={"jobs": jobs}, headers={"Authorization": f"Bearer {key}"})


async def scraped(stack: Stack) -> float:
    """Seconds that /metrics took."""
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=stack.web_url, timeout=PATIENCE) as http:
        assert (await http.get("/metrics")).status_code == 200
    return time.monotonic() - began


async def lanes(stack: Stack, redis: Redis) -> int:
    """How many lanes the clocks, doctor and the pages may have to walk through."""
    return int(await redis.zcard(f"{{{stack.settings.namespace}}}:lanes"))


async def watch_slow_commands(redis: Redis) -> None:
    await redis.config_set("slowlog-log-slower-than", 10_000)
    await redis.slowlog_reset()


async def slowest_command(redis: Redis) -> float:
    """Seconds for which Redis answered nobody else."""
    return max((entry["duration"] for entry in await redis.slowlog_get(100)), default=0) / 1e6


def attack(targets: list[str]) -> dict[str, object]:
    return query("attack", targets=targets).model_dump(exclude_unset=True)


async def test_names_of_handlers_that_nobody_has_are_refused(stack: Stack, redis: Redis, others: Receiver) -> None:
    """Protected by worker/store/handlers.py, which every way to enqueue asks."""
    async with stack.client() as client:
        quiet = await time_of_anothers_job(client, others)
        jobs = [attack([f"x{job}-{name}" for name in range(NAMES)]) for job in range(JOBS)]
        answer = await posted(stack, jobs)
        attacked_for = await time_of_anothers_job(client, others)
        assert await scraped(stack) < LONG
        assert attacked_for < quiet + LONG
        assert await lanes(stack, redis) < 100
    assert {item["status"] for item in answer.json()["jobs"]} == {422}
    assert "no worker has a handler" in answer.text


@pytest.mark.parametrize("hosts", [1, JOBS])
async def test_one_tenant_s_deliveries_flood_no_server_and_delay_nobody_elses(
    stack: Stack, redis: Redis, attacked: Receiver, others: Receiver, hosts: int
) -> None:
    """Protected by record/admission.lua. The server keeps every request, as one that is overrun does."""
    async with stack.client() as client:
        quiet = await time_of_anothers_job(client, others)
        await watch_slow_commands(redis)
        room = min(hosts * PER_HOST, PER_TENANT)
        jobs = [
            attack([attacked.url(f"{job}/{name}", f"127.0.1.{job % hosts}") for name in range(NAMES)])
            for job in range(JOBS)
        ]
        answer = await posted(stack, jobs)
        assert {item["status"] for item in answer.json()["jobs"]} <= {200, 201, 202}

        async def hangs() -> bool:
            return attacked.at_once == room

        await until(hangs, what="the attack has begun")
        attacked_for = await time_of_anothers_job(client, others)
        assert attacked.got < JOBS * NAMES, "the attack is still going on"
        assert await scraped(stack) < LONG
        assert attacked_for < quiet + LONG
        assert attacked.most_at_once <= room
        assert await lanes(stack, redis) < room + 50
        assert await slowest_command(redis) < SLOW
        attacked.open.set()

        async def goes_on() -> bool:
            return attacked.got >= 5 * room

        await until(goes_on, what="the attacker's own deliveries go on, in their turn")
        assert attacked.most_at_once <= room


async def sent(stack: Stack, redis: Redis, targets: list[str], **fields: object) -> str:
    """The id of a job that came from a producer with least rights: `LPUSH` to its queue."""
    job_id = uuid4().hex
    request = {**query("attack", tenant="mallory").model_dump(exclude_unset=True), "targets": targets, **fields}
    message = {
        "body": base64.b64encode(json.dumps([[], request, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "tasks.submit", "id": job_id},
        "properties": {"body_encoding": "base64"},
    }
    await redis.lpush(stack.settings.intake.queue, json.dumps(message))
    return job_id


async def taken_in(client: StoreClient, job_id: str) -> Job:
    async def look() -> bool:
        try:
            return bool(await client.job(job_id))
        except JobNotFound:
            return False

    await until(look, what="the message is taken in")
    return await closed(client, job_id)


async def test_a_refused_message_informs_twenty_targets_at_most(stack: Stack, redis: Redis, others: Receiver) -> None:
    """Protected by worker/engine/acceptance.py: Redis would stand still while one script makes 30,000 deliveries."""
    async with stack.client() as client:
        await time_of_anothers_job(client, others)
        await watch_slow_commands(redis)
        job_id = await sent(stack, redis, [f"file:{number}.jsonl" for number in range(30_000)])
        job = await taken_in(client, job_id)
        deliveries = await client.deliveries(job_id)
        assert await slowest_command(redis) < SLOW
    assert job.error
    assert (job.state, job.error.code) == (JobState.FAILED, "invalid_request")
    assert len(deliveries) <= 20


async def test_a_message_that_names_an_unknown_handler_is_a_failed_job(stack: Stack, redis: Redis) -> None:
    """Protected by worker/engine/intake.py: its producer reads why; those of its targets that exist are informed."""
    async with stack.client() as client:
        job = await taken_in(client, await sent(stack, redis, ["cmr", "crm"]))
        assert [each.target for each in await client.deliveries(job.id)] == ["crm"]
    assert job.error
    assert (job.state, job.error.code) == (JobState.FAILED, "invalid_request")
    assert "'cmr'" in job.error.message


async def test_a_failing_receiver_is_one_line_and_not_one_for_each_attempt(stack: Stack, others: Receiver) -> None:
    """Protected by tasks/deliver.py `Failures`."""
    others.status = 500
    async with stack.client() as client:
        jobs = [attack([others.url(str(name)) for name in range(NAMES)]) for _ in range(2)]
        answer = await posted(stack, jobs, "unlucky")
        for item in answer.json()["jobs"]:
            await closed(client, item["id"])
    lines = [line for line in stack.logs().splitlines() if "delivery-failed" in line and others.url("")[:-1] in line]
    assert others.got == 2 * NAMES * 5
    assert 1 <= len(lines) <= 5
    assert "Traceback" not in stack.logs()
