"""A broker that is not Redis: `tasks.submit` is an ordinary task there. Kombu's file transport stands for RabbitMQ."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis.asyncio import Redis

from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import JobState
from tests.patience import PATIENCE
from tests.stack import Stack, ended, query, until

TRANSPORT = "tests.file_broker:Transport"

BROKER = """
from outwait.worker.app import app

app.conf.update(broker_url="filesystem://", broker_transport={transport!r}, broker_transport_options={options!r})
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("broker")
    for name in ("queues", "control"):
        (folder / name).mkdir()
    queues = str(folder / "queues")
    return {"data_folder_in": queues, "data_folder_out": queues, "control_folder": str(folder / "control")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(store: EmbeddedRedis, options: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("other")
    (folder / "other.py").write_text(BROKER.format(options=options, transport=TRANSPORT))
    # Settings allow RabbitMQ alone beside Redis; this one is never asked.
    # An outage has one line; that a job could not be stored is told for debugging only.
    variables = {
        "OUTWAIT_BROKER_URL": "amqp://nobody@127.0.0.1//",
        "OUTWAIT_EVENTS__JOBS": "false",
        "OUTWAIT_LOG__LEVEL": "DEBUG",
    }
    with Stack(store.url, folder, options={"behaviour": {"duration": 0.2}}, variables=variables) as running:
        command = ["-m", "celery", "-A", "other", "worker", "-P", "threads", "-c", "4", "-n", "outwait@%h"]
        running.start([sys.executable, *command, "--without-gossip", "--without-mingle"], "worker")
        yield running


@pytest.fixture
def producer(stack: Stack, options: dict[str, str]) -> Iterator[Celery]:
    with Celery("shop", broker="filesystem://", backend=stack.variables["OUTWAIT_REDIS_URL"]) as app:
        app.conf.update(
            broker_transport=TRANSPORT, broker_transport_options=options, task_default_queue=stack.settings.intake.queue
        )
        yield app
        app.backend.result_consumer.stop()


async def came_to(app: Celery, kwargs: dict[str, Any], **options: Any) -> Any:
    job = app.send_task("tasks.submit", kwargs=kwargs, **options)
    try:
        return await asyncio.to_thread(lambda: job.get(timeout=PATIENCE, propagate=False))
    finally:
        app.backend.remove_pending_result(job)
        job.backend = None  # it would do the same when it is collected, and this Redis be away


async def test_a_job_gives_its_result(producer: Celery) -> None:
    result = await came_to(producer, query("why?").model_dump(exclude_defaults=True))
    assert "why?" in result["answer"]


async def test_what_can_be_no_job_is_refused_under_its_id(stack: Stack, producer: Celery) -> None:
    after = producer.signature("shop.done")
    result = await came_to(producer, query().model_dump(exclude_defaults=True), task_id="linked", link=after)
    assert "callbacks: not supported for jobs" in str(result)
    async with stack.client() as client:
        assert (await client.job("linked")).state is JobState.FAILED


async def test_a_producer_that_wants_the_results_of_tasks_gets_those_of_jobs(stack: Stack, producer: Celery) -> None:
    # Celery 5.2 to 5.6 send this header with each message, and the task itself returns None.
    wanted = {"headers": {"ignore_result": False}}
    fails = query('x sandbox:{"outcome":"failure"}').model_dump(exclude_defaults=True)
    fine, failed = await asyncio.gather(
        came_to(producer, query("5.2?").model_dump(exclude_defaults=True), **wanted),
        came_to(producer, fails, **wanted),
    )
    assert "5.2?" in fine["answer"]
    assert str(failed).startswith("provider_failed: ERROR: ")


TIMES = {
    "expired": ({"expires": "2020-01-01T00:00:00+00:00"}, "expires: the message expired at"),
    "not a time": ({"eta": "tomorrow"}, "eta: given 'tomorrow'"),
}


@pytest.mark.parametrize("what", TIMES)
async def test_a_message_with_a_time_that_is_past_or_none_becomes_a_failed_job(
    stack: Stack, producer: Celery, what: str
) -> None:
    options, message = TIMES[what]
    answer = await came_to(
        producer, query().model_dump(exclude_defaults=True), task_id=what.replace(" ", "-"), **options
    )
    assert str(answer).startswith("invalid_request: ")
    assert message in str(answer)


async def test_a_countdown_is_kept_in_the_store_and_a_job_revoked_before_it_is_over_is_never_paid(
    stack: Stack, producer: Celery
) -> None:
    job_id, text = "patiently", "in an hour"
    kwargs = query(text).model_dump(exclude_defaults=True)
    waits = asyncio.create_task(came_to(producer, kwargs, task_id=job_id, countdown=3600))
    async with stack.client() as client:

        async def recorded() -> bool:
            return bool(await client._store.reads.jobs([job_id]))

        await until(recorded)
        job = await client.job(job_id)
        assert job.due is not None
        assert 3500 < job.due - job.created <= 3600
        producer.control.revoke(job_id)
        error = await waits
        assert (type(error).__name__, str(error)) == ("JobCancelled", "cancelled: revoked through Celery")
        assert (await client.job(job_id)).ledger.submits == 0
    assert not stack.seen(text)


async def test_a_job_revoked_before_its_message_is_read_is_recorded_as_cancelled(
    stack: Stack, producer: Celery
) -> None:
    job_id, text = "revoked-early", "never asked"
    async with Redis.from_url(stack.variables["OUTWAIT_REDIS_URL"]) as redis:

        async def remembered() -> bool:
            producer.control.revoke(job_id)
            return bool(await redis.exists(f"{{{stack.settings.namespace}}}:rv:{job_id}"))

        await until(remembered)
    error = await came_to(producer, query(text).model_dump(exclude_defaults=True), task_id=job_id)
    assert type(error).__name__ == "JobCancelled"
    assert not stack.seen(text)


async def test_a_message_without_a_usable_id_is_put_aside(stack: Stack, producer: Celery) -> None:
    producer.send_task("tasks.submit", kwargs={}, task_id="no id at all!")
    async with stack.client() as client:

        async def parked() -> bool:
            return any("'no id at all!'" in message.reason for message in await client.parked())

        await until(parked)


async def test_a_message_that_holds_too_much_is_put_aside(stack: Stack, producer: Celery) -> None:
    kwargs = query("x" * 20_000_000).model_dump(exclude_defaults=True)
    producer.send_task("tasks.submit", kwargs=kwargs, task_id="bomb", compression="bzip2")
    async with stack.client() as client:

        async def parked() -> bool:
            return any("bytes, after decompression" in message.reason for message in await client.parked())

        await until(parked)


async def test_a_message_that_comes_while_the_store_is_away_becomes_a_job_later(
    stack: Stack, options: dict[str, str], store: EmbeddedRedis
) -> None:
    store.stop()
    with Celery("shop", broker="filesystem://") as app:  # without results, which would need the store at once
        app.conf.update(
            broker_transport=TRANSPORT, broker_transport_options=options, task_default_queue=stack.settings.intake.queue
        )
        app.send_task("tasks.submit", kwargs=query().model_dump(exclude_defaults=True), task_id="patient")

    async def outage_logged() -> bool:
        return "job-not-recorded" in stack.logs()

    await until(outage_logged)
    store.start()
    async with stack.client() as client:

        async def recorded() -> bool:
            return bool(await client._store.reads.jobs(["patient"]))

        await until(recorded)
        assert (await ended(client, "patient")).state is JobState.SUCCEEDED
