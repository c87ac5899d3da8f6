"""Celery's `revoke`: what it says and what a producer's `get()` says are true, whenever it comes."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from redis.asyncio import Redis

from outwait.worker.model.errors import JobNotFound
from outwait.worker.model.jobs import JobState
from tests.patience import PATIENCE
from tests.stack import Stack, closed, ended, query, until


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    behaviour = {"behaviour": {"duration": 0.2}}
    with Stack(redis_url, tmp_path_factory.mktemp("revoke"), options=behaviour) as running:
        running.worker()
        yield running


@pytest.fixture
def producer(stack: Stack) -> Iterator[Celery]:
    url = stack.variables["OUTWAIT_REDIS_URL"]
    with Celery("shop", broker=url, backend=url, set_as_current=False) as app:
        app.conf.update(task_default_queue=stack.settings.intake.queue)
        yield app
        app.backend.result_consumer.stop()


def send(app: Celery, text: str, **options: Any) -> Any:
    return app.send_task("tasks.submit", kwargs=query(text).model_dump(exclude_defaults=True), **options)


async def came_to(result: Any) -> str:
    """What `get()` returns, or the name and text of what it raises."""
    try:
        value = await asyncio.to_thread(result.get, timeout=PATIENCE, propagate=False)
    finally:
        result.backend.remove_pending_result(result)
        result.backend = None  # it would do the same when it is collected, and this Redis be away
    return f"{type(value).__name__}: {value}"


async def revoke_unknown(stack: Stack, app: Celery, job_id: str) -> None:
    """Revoke an id that no job has, and wait until the store remembers it."""
    async with Redis.from_url(stack.variables["OUTWAIT_REDIS_URL"]) as redis:
        key = f"{{{stack.settings.namespace}}}:rv:{job_id}"

        async def remembered() -> bool:
            app.control.revoke(job_id)  # again and again: a worker that still starts does not hear it
            return bool(await redis.exists(key))

        await until(remembered, what="the store remembers the revoked id")


async def test_an_id_revoked_before_its_message_is_read_is_never_paid(stack: Stack, producer: Celery) -> None:
    job_id, text = str(uuid4()), f"early {uuid4()}"
    await revoke_unknown(stack, producer, job_id)
    assert await came_to(send(producer, text, task_id=job_id)) == "JobCancelled: cancelled: revoked through Celery"
    async with stack.client() as client:
        job = await closed(client, job_id)
        assert job.state is JobState.CANCELLED
        assert job.ledger.submits == 0
        assert [entry.event for entry in await client.timeline(job_id)][:2] == ["enqueued", "cancelled"]
    assert not stack.seen(text)


async def test_every_job_revoked_right_after_it_was_sent_ends_as_cancelled(stack: Stack, producer: Celery) -> None:
    sent = []
    for number in range(20):
        sent.append(send(producer, f'at once {number} sandbox:{{"outcome":"never"}}'))
        producer.control.revoke(sent[-1].id)
    errors = [await came_to(result) for result in sent]
    assert set(errors) == {"JobCancelled: cancelled: revoked through Celery"}
    async with stack.client() as client:
        jobs = [await client.job(result.id) for result in sent]
    assert {job.state for job in jobs} == {JobState.CANCELLED}


async def test_a_revoked_job_that_ended_long_ago_keeps_its_end_and_gets_no_result_of_celerys(
    stack: Stack, producer: Celery
) -> None:
    result = send(producer, "long ago")
    async with stack.client() as client:
        assert "long ago" in await came_to(result)
        async with Redis.from_url(stack.variables["OUTWAIT_REDIS_URL"]) as redis:
            await redis.delete(f"celery-task-meta-{result.id}")  # as when it has expired
            replies = await asyncio.to_thread(producer.control.revoke, result.id, reply=True, timeout=2)
            assert [list(answer.values()) for answer in replies] == [[{"ok": f"tasks {result.id} flagged as revoked"}]]
            assert "after it" in await came_to(send(producer, "after it"))
            assert not await redis.exists(f"celery-task-meta-{result.id}")
        assert (await client.job(result.id)).state is JobState.SUCCEEDED


async def test_revoking_another_id_of_a_job_cancels_the_job(stack: Stack, producer: Celery) -> None:
    key, text = str(uuid4()), 'alias sandbox:{"outcome":"never"}'
    kwargs = query(text, idempotency_key=key).model_dump(exclude_defaults=True)
    first, second = (producer.send_task("tasks.submit", kwargs=kwargs) for _ in range(2))
    async with stack.client() as client:

        async def is_alias() -> bool:
            try:
                return (await client.job(second.id)).id == first.id
            except JobNotFound:
                return False

        await until(is_alias)
        producer.control.revoke(second.id)
        assert (await ended(client, first.id)).state is JobState.CANCELLED
    assert await came_to(second) == await came_to(first)
