"""Nothing tells whether a job of another tenant exists, and names that nobody knows leave nothing behind."""

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.web import app
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.intake import Intake
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import JobState
from outwait.worker.providers.registry import build
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.store import Store
from tests.stack import query

MIBS = "x" * 500_000
"""What a job may hold, and takes time to be read."""


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose commands are counted: nobody else uses it."""
    with EmbeddedRedis(tmp_path_factory.mktemp("own")) as server:
        yield server.url


@pytest.fixture
def settings(own_redis: str) -> Settings:
    return Settings(redis_url=own_redis, namespace=f"t-{uuid4().hex[:8]}", _env_file=None)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[StoreClient]:
    async with StoreClient(settings) as client:
        yield client


@pytest.fixture
async def web(settings: Settings, connection: Connection) -> AsyncIterator[httpx.AsyncClient]:
    """The web edge in this process, for a key of the tenant `curious`."""
    key = await Access(connection).create("curious", set(Scope), "curious")
    edge = app.create(settings)
    async with edge.router.lifespan_context(edge):
        transport = httpx.ASGITransport(edge)
        headers = {"Authorization": f"Bearer {key.text}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://ours.example", headers=headers) as web:
            yield web


async def commands(redis: Redis) -> Counter[str]:
    """How often each command was called so far; what keeps connections alive does not count."""
    stats = await redis.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
    noise = ("info", "ping", "hello", "client", "select", "auth", "subscribe", "config")
    return Counter({name: count for name, count in calls.items() if not name.startswith(noise)})


ROUTES = [
    ("GET", "/v1/jobs/{}", None),
    ("GET", "/v1/jobs/{}?wait=5", None),
    ("GET", "/v1/jobs/{}/result", None),
    ("GET", "/v1/jobs/{}/timeline", None),
    ("GET", "/v1/jobs/{}/deliveries", None),
    ("GET", "/v1/jobs/{}/events", None),
    ("GET", "/v1/audit?job={}", None),
    ("POST", "/v1/jobs/{}/cancel", None),
    ("POST", "/v1/jobs/{}/repoll", None),
    ("POST", "/v1/jobs/{}/replay", {}),
    ("POST", "/v1/jobs/{}/resolve", {"choice": "fail"}),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
async def test_another_tenant_s_job_costs_what_no_job_costs(
    client: StoreClient, web: httpx.AsyncClient, own_redis: str, method: str, path: str, body: object
) -> None:
    """Protected by outwait/web/auth.py `visible`: the same answer, and the same commands to Redis."""
    theirs = (await client.enqueue(query("theirs", tenant="acme", metadata={"text": MIBS}))).job_id
    alias = (await client.enqueue(query("other", tenant="acme", idempotency_key="once"))).job_id
    second = (await client.enqueue(query("other", tenant="acme", idempotency_key="once"), job_id="second")).job_id
    assert second == alias
    answers, costs = [], []
    async with Redis.from_url(own_redis) as redis:
        for job_id in ("warm-up", "no-such-job", theirs, "second"):
            before = await commands(redis)
            answer = await web.request(method, path.format(job_id), json=body)
            costs.append(await commands(redis) - before)
            text = answer.text.replace(job_id, "ID")
            answers.append((answer.status_code, text, len(answer.headers)))
    assert answers[1][0] == 404
    assert answers[1] == answers[2] == answers[3]
    assert costs[1] == costs[2] == costs[3]


async def test_another_tenant_s_idempotency_key_is_like_a_new_one(
    client: StoreClient, web: httpx.AsyncClient, own_redis: str
) -> None:
    """Protected by worker/store/lua/enqueue.lua: each tenant has keys of its own."""
    await client.enqueue(query("theirs", tenant="acme", idempotency_key="taken"))
    fields = query("mine").model_dump(exclude_unset=True)
    async with Redis.from_url(own_redis) as redis:
        answers, costs = [], []
        for key in ("warm-up", "free", "taken"):
            before = await commands(redis)
            answers.append(await web.post("/v1/jobs", json=fields | {"idempotency_key": key}))
            costs.append(await commands(redis) - before)
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert costs[1] == costs[2]


async def test_made_up_provider_names_leave_nothing_behind(
    client: StoreClient, settings: Settings, own_redis: str
) -> None:
    """Protected by worker/engine/acceptance.py `refused`: keys, lists and labels are by provider."""
    await client.enqueue(query("real"))

    async def messages(count: int) -> None:
        async with Redis.from_url(own_redis) as redis, redis.pipeline(transaction=False) as pipe:
            for _ in range(count):
                made_up = {"provider": f"p-{uuid4().hex}", "operation": f"o-{uuid4().hex}", "params": {}}
                message = {
                    "body": base64.b64encode(json.dumps([[], made_up, {}]).encode()).decode(),
                    "content-type": "application/json",
                    "headers": {"task": "tasks.submit", "id": uuid4().hex},
                }
                pipe.lpush(settings.intake.queue, json.dumps(message))
            await pipe.execute()

    async def taken_in() -> None:
        async with Store.open(settings) as store:
            intake = Intake(
                store.lanes,
                store.inbox,
                Acceptance(build({}), settings),
                NoEvents(),
                None,
                settings.intake,  # type: ignore[arg-type]
            )
            while await intake.take():
                pass

    async def traces() -> tuple[set[bytes], set[bytes], list[str]]:
        async with Redis.from_url(own_redis) as redis:
            root = f"{{{settings.namespace}}}:"
            indexes = {key async for key in redis.scan_iter(f"{root}ix:*", count=1000)}
            return indexes, set(await redis.hkeys(f"{root}stats")), sorted(await client.counts())

    await messages(1)
    await taken_in()
    before = await traces()
    await messages(1000)
    await taken_in()
    assert await traces() == before
    assert before[2] == ["unknown", "unless"]
    newest = (await client.jobs(limit=1)).jobs[0]
    assert (newest.provider, newest.state) == ("unknown", JobState.FAILED)
    assert newest.error
    assert "provider: given 'p-" in newest.error.message


class NoEvents:
    """Nobody looks at Flower."""

    def accepted(self, *_: object) -> None:
        """Nothing."""
