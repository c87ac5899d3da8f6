"""A real RabbitMQ as the broker, set up as docs/enqueueing.md says; skipped where none is installed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue

from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import JobState
from tests.patience import PATIENCE, until
from tests.rabbitmq import RabbitMQ, rabbitmq
from tests.stack import Stack, ended, query

KINDS = ("classic", "quorum")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture(scope="module", params=KINDS)
def stack(
    request: pytest.FixtureRequest, broker: RabbitMQ, store: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    variables = {
        "OUTWAIT_BROKER_URL": broker.url,
        "OUTWAIT_INTAKE__QUEUE_TYPE": request.param,
        "OUTWAIT_EVENTS__JOBS": "false",
        "OUTWAIT_LOG__LEVEL": "DEBUG",  # which job could not be stored is told for debugging only
    }
    with Stack(store.url, folder, options={"behaviour": {"duration": 0.2}}, variables=variables) as running:
        running.worker()
        yield running


def set_policy(broker: RabbitMQ, queue: str, definition: dict[str, Any]) -> None:
    broker.control("set_policy", "--apply-to", "queues", queue, f"^{queue}$", json.dumps(definition))


@pytest.fixture
def producer(stack: Stack) -> Iterator[Celery]:
    settings = stack.settings
    kind, queue = settings.intake.queue_type, settings.intake.queue
    arguments = {"x-queue-type": kind} if kind == "quorum" else None
    with Celery("shop", broker=settings.broker, backend=stack.variables["OUTWAIT_REDIS_URL"]) as app:
        declared = Queue(queue, Exchange(queue), routing_key=queue, queue_arguments=arguments)
        app.conf.update(task_queues=[declared], task_default_queue=queue)
        yield app
        app.backend.result_consumer.stop()


def send(app: Celery, text: str, **options: Any) -> Any:
    kwargs = query(text).model_dump(exclude_defaults=True)
    # As producers of Celery 5.2 to 5.6 ask for the result of the task itself.
    return app.send_task("tasks.submit", kwargs=kwargs, headers={"ignore_result": False}, **options)


async def came_to(app: Celery, job: Any) -> Any:
    try:
        return await asyncio.to_thread(lambda: job.get(timeout=PATIENCE, propagate=False))
    finally:
        app.backend.remove_pending_result(job)
        job.backend = None  # it would do the same when it is collected, and this Redis be away


async def test_get_gives_a_jobs_result_or_its_error(stack: Stack, producer: Celery) -> None:
    fine, failed = send(producer, "fine"), send(producer, 'x sandbox:{"outcome":"failure"}')
    assert "fine" in (await came_to(producer, fine))["answer"]
    assert str(await came_to(producer, failed)).startswith("provider_failed: ERROR: ")


async def test_workers_make_no_other_queues(stack: Stack, producer: Celery, broker: RabbitMQ) -> None:
    await came_to(producer, send(producer, "counted down", countdown=1))
    names = broker.control("list_queues", "name", "--no-table-headers").split()
    assert not [name for name in names if name.startswith("celery_delayed")]
    assert "delayed delivery" not in stack.logs()


async def test_a_message_that_expires_in_the_queue_becomes_a_failed_job(
    stack: Stack, producer: Celery, broker: RabbitMQ
) -> None:
    await came_to(producer, send(producer, "a worker runs"))
    queue = stack.settings.intake.queue
    expired = f"{queue}.expired"
    set_policy(broker, queue, {"dead-letter-exchange": expired, "dead-letter-routing-key": expired})
    assert producer.control.cancel_consumer(queue, reply=True, timeout=PATIENCE, limit=1)
    late = send(producer, "too late", expires=0.5)
    with producer.connection_for_read() as connection:
        declared = producer.amqp.queues[queue](connection.default_channel)

        async def empty() -> bool:
            return declared.queue_declare(passive=True).message_count == 0

        await until(empty)
    assert producer.control.add_consumer(queue, reply=True, timeout=PATIENCE, limit=1)
    error = str(await came_to(producer, late))
    assert error.startswith("invalid_request: expires: the message expired at")
    assert not stack.seen("too late")


async def test_messages_wait_in_a_worker_while_the_store_is_away(
    stack: Stack, producer: Celery, store: EmbeddedRedis, broker: RabbitMQ
) -> None:
    """A quorum queue drops what came back to it too often: in RabbitMQ 4, without a policy, 20 times."""
    await came_to(producer, send(producer, "a worker runs"))
    set_policy(broker, stack.settings.intake.queue, {"delivery-limit": 1})
    store.stop()
    job = send(producer, "patient", task_id=f"patient-{stack.settings.namespace}", ignore_result=True)

    async def tried_often() -> bool:
        return stack.logs().count("job-not-recorded") > 4

    await until(tried_often)
    store.start()
    async with stack.client() as client:

        async def recorded() -> bool:
            return bool(await client._store.reads.jobs([job.id]))

        await until(recorded)
        assert (await ended(client, job.id)).state is JobState.SUCCEEDED
