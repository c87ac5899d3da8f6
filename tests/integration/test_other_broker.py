"""A broker that is not Redis: `tasks.submit` is an ordinary task there. Kombu's file transport stands for RabbitMQ."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

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
    variables = {"OUTWAIT_BROKER_URL": "amqp://nobody@127.0.0.1//", "OUTWAIT_EVENTS__JOBS": "false"}
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
    return await asyncio.to_thread(lambda: job.get(timeout=PATIENCE, propagate=False))


async def test_a_job_gives_its_result(producer: Celery) -> None:
    result = await came_to(producer, query("why?").model_dump(exclude_defaults=True))
    assert "why?" in result["answer"]


async def test_what_can_be_no_job_is_refused_under_its_id(stack: Stack, producer: Celery) -> None:
    after = producer.signature("shop.done")
    result = await came_to(producer, query().model_dump(exclude_defaults=True), task_id="linked", link=after)
    assert "callbacks: not supported for jobs" in str(result)
    async with stack.client() as client:
        assert (await client.job("linked")).state is JobState.FAILED


async def test_a_message_without_a_usable_id_is_put_aside(stack: Stack, producer: Celery) -> None:
    producer.send_task("tasks.submit", kwargs={}, task_id="no id at all!")
    async with stack.client() as client:

        async def parked() -> bool:
            return any("'no id at all!'" in message.reason for message in await client.parked())

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
