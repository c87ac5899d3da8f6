"""A producer with least rights names keys of Celery's as targets, and another tenant's job comes next.

Such a stream took the place of kombu's hash of unacknowledged messages, which is no key while it is empty.
"""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from outwait.client.store import StoreClient
from outwait.worker.model.errors import InvalidRequest, JobNotFound
from outwait.worker.model.jobs import DeliveryState, Job, JobState
from outwait.worker.model.targets import Target
from outwait.worker.store.access import Scope
from outwait.worker.store.key_types import needed_types
from outwait.worker.store.store import Store
from tests.stack import WORKER, Stack, closed, query, until

BINDINGS = ("_kombu.binding.celeryev", "_kombu.binding.reply.celery.pidbox", "_kombu.binding_deadlines", "celery")


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = {"behaviour": {"duration": 0}}
    variables = {"OUTWAIT_WEB__TARGETS": "stream://*,celery://*,file:*"}
    with Stack(redis_url, tmp_path_factory.mktemp("attack"), options=options, variables=variables) as stack:
        stack.worker()
        stack.web()
        yield stack


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


def names(stack: Stack) -> list[str]:
    """Keys that kombu needs for our workers."""
    kinds = ("unacked", "unacked_index", "unacked_mutex", "submit", "poll", "callback", "deliver")
    return [*(f"{stack.settings.namespace}.{kind}" for kind in kinds), *BINDINGS]


async def sent(stack: Stack, redis: Redis, targets: list[str]) -> str:
    """The id of a job that came in the way that is open to a producer with least rights: `LPUSH` to its queue."""
    job_id = uuid4().hex
    request = query("attack", tenant="mallory", targets=targets).model_dump(exclude_unset=True)
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
    """The job when it is closed."""

    async def look() -> bool:
        try:
            return bool(await client.job(job_id))
        except JobNotFound:
            return False

    await until(look, what="the message is taken in")
    return await closed(client, job_id)


async def misplaced(stack: Stack, redis: Redis) -> dict[str, str]:
    """Keys of another type than workers need."""
    needed = needed_types(stack.settings)
    types = {key: (await redis.type(key)).decode() for key in needed}
    return {key: kind for key, kind in types.items() if kind not in {"none", needed[key]}}


@pytest.mark.parametrize("form", ["stream://{}", "celery://x?queue={}"])
async def test_no_target_of_a_message_is_a_key_of_celery_s(stack: Stack, redis: Redis, form: str) -> None:
    """Protected by worker/model/destinations.py."""
    job_id = await sent(stack, redis, [form.format(name) for name in names(stack)])
    async with stack.client() as client:
        job = await taken_in(client, job_id)
        other = (await client.enqueue(query("victim", tenant="acme"))).job_id
        assert (await closed(client, other)).state is JobState.SUCCEEDED
        assert await client.deliveries(job_id) == []
    assert job.error
    assert (job.state, job.error.code) == (JobState.FAILED, "invalid_request")
    assert "never allowed" in job.error.message
    assert await misplaced(stack, redis) == {}


async def test_a_refused_message_informs_only_targets_that_are_allowed(stack: Stack, redis: Redis) -> None:
    """Protected by worker/engine/acceptance.py: what a refused job is delivered to is checked like any other target."""
    targets = [f"stream://{stack.settings.namespace}.unacked", "stream://transcripts", "file:refused.jsonl", "no such"]
    job_id = await sent(stack, redis, targets)
    async with stack.client() as client:
        await taken_in(client, job_id)
        assert [each.target for each in await client.deliveries(job_id)] == ["file:refused.jsonl"]
    assert await misplaced(stack, redis) == {}


async def test_every_other_way_in_refuses_them_too(stack: Stack) -> None:
    """Protected by worker/engine/acceptance.py, which each way to enqueue asks."""
    target = f"stream://{stack.settings.namespace}.unacked"
    async with Store.open(stack.settings) as store:
        key = (await store.access.create("mallory", [Scope.ENQUEUE])).text
    async with httpx.AsyncClient(base_url=stack.web_url, headers={"Authorization": f"Bearer {key}"}) as web:
        for asked in (target, "stream://transcripts", "celery://x", "celery://x?queue=crm"):
            request = query(targets=[asked]).model_dump(exclude_unset=True)
            one = await web.post("/v1/jobs", json=request)
            batch = await web.post("/v1/jobs", json={"jobs": [request]})
            assert (one.status_code, one.json()["code"]) == (422, "invalid_request")
            assert "allowed" in one.json()["detail"]
            assert [item["status"] for item in batch.json()["jobs"]] == [422]
    words = ("submit", "unless", "query", "-p", "query=x", "-p", "sessionId=s", "-p", "visitorId=v", "--target", target)
    typed = stack.run(*words)
    assert typed.returncode != 0
    assert "never allowed" in typed.stderr
    routes = json.dumps([{"targets": [target]}])
    worker = stack.start(WORKER, "routed", OUTWAIT_HANDLERS__ROUTES=routes)
    assert worker.wait() != 0
    assert "OUTWAIT_HANDLERS__ROUTES: stream" in stack.logs("routed")
    async with stack.client() as client:
        with pytest.raises(InvalidRequest, match="OUTWAIT_HANDLERS__QUEUES"):
            await client.enqueue(query(targets=["celery://crm.store?queue=crm"]))


class Lax:
    """What a release without these rules allows."""

    def refusal(self, _target: Target) -> str:
        return ""


async def test_a_stored_job_s_target_that_is_not_allowed_is_a_dead_delivery(stack: Stack, redis: Redis) -> None:
    """Protected by tasks/handlers/delivery.py: a release without this rule, or other settings, stored it."""
    unacked, marker = f"stream://{stack.settings.namespace}.unacked", f"stream://s-{uuid4().hex}"
    targets = [unacked, marker, "celery://x?queue=crm", "file:kept.jsonl"]
    async with stack.client() as client:
        client._acceptance._destinations = Lax()  # type: ignore[assignment]
        job_id = (await client.enqueue(query("stored", targets=targets))).job_id
        assert (await closed(client, job_id)).state is JobState.SUCCEEDED
        deliveries = {each.target: each for each in await client.deliveries(job_id)}
        dead = {each.target for each in await client.dead(10) if each.job_id == job_id}
    assert dead == set(targets[:3])
    assert deliveries["file:kept.jsonl"].state is DeliveryState.DELIVERED
    for target, why in ((unacked, "never allowed"), (marker, "OUTWAIT_HANDLERS__STREAMS"), (targets[2], "QUEUES")):
        error = deliveries[target].error
        assert error
        assert why in error.message
    assert not await redis.exists(marker.removeprefix("stream://"), "crm")
    assert await misplaced(stack, redis) == {}


async def test_no_folder_takes_the_place_of_another_tenant_s_file(stack: Stack, redis: Redis) -> None:
    """Protected by worker/model/targets.py `_file`."""
    file = f"{uuid4().hex}.jsonl"
    job_id = await sent(stack, redis, [f"file:{file}/x.jsonl"])
    async with stack.client() as client:
        await taken_in(client, job_id)
        other = (await client.enqueue(query("victim", tenant="acme", targets=[f"file:{file}"]))).job_id
        await closed(client, other)
        assert [each.state for each in await client.deliveries(other)] == [DeliveryState.DELIVERED]
    assert (Path(stack.settings.handlers.folder) / file).is_file()


async def test_a_key_of_another_type_is_told_and_moved_as_doctor_says(stack: Stack, redis: Redis) -> None:
    """Protected by worker/store/key_types.py: whoever wrote the key, a person learns of it."""
    key = f"{stack.settings.namespace}.unacked"

    async def written() -> bool:
        try:
            return bool(await redis.xadd(key, {"x": "y"}))
        except ResponseError:  # the key is there for a moment
            return False

    await until(written)
    async with httpx.AsyncClient(base_url=stack.web_url) as web:
        answer = await web.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unfit")
        assert f"key {key} is a stream, but workers need a hash there" in stack.logs("web")
        doctor = stack.run("doctor", "--no-providers")
        assert doctor.returncode == 1
        assert f'RENAME "{key}" "{key}.moved"' in doctor.stdout + doctor.stderr
        await redis.rename(key, f"{key}.moved")
        assert (await web.get("/readyz")).status_code == 200
