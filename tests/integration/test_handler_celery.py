"""Deliveries to tasks of another Celery app: a real broker, and a real worker that shares no code with us."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from outwait import DeliveryFailed, Envelope
from outwait.config.groups import HandlerSettings
from outwait.tasks.handlers.delivery import Handlers
from outwait.worker.model.jobs import JobError, JobState
from tests.destinations import ANYWHERE
from tests.patience import PATIENCE, wait_until

RECEIVER = """
import json, os, pathlib
from celery import Celery

app = Celery("crm", broker=os.environ["BROKER"])

@app.task(name="crm.store", bind=True)
def store(self, envelope):
    inbox = pathlib.Path(os.environ["INBOX"])
    part = inbox / f"{envelope['job_id']}.part"
    part.write_text(json.dumps([self.request.id, envelope]))
    part.rename(inbox / f"{envelope['job_id']}.json")
"""


def envelope(job: str, **changes: Any) -> Envelope:
    return Envelope(
        delivery_id=f"{job}#0",
        job_id=job,
        provider="unless",
        operation="query",
        created=1.0,
        **({"state": JobState.SUCCEEDED} | changes),
    )


@pytest.fixture
def sender(redis_url: str) -> Iterator[Celery]:
    """An app like our own: its default queue is not that of others, and it keeps results."""
    app = Celery("sender", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.task_default_queue = "ours"
    yield app
    app.close()


@contextmanager
def receiving(folder: Path, broker: str, *arguments: str) -> Iterator[Path]:
    """A worker of the other app, in a folder of its own; gives the folder of what it received."""
    inbox = folder / "inbox"
    inbox.mkdir()
    (folder / "receiver.py").write_text(RECEIVER)
    command = [sys.executable, "-m", "celery", "-A", "receiver", "worker", "--pool=solo", "--without-mingle"]
    worker = subprocess.Popen(
        [*command, "--without-gossip", "-l", "ERROR", *arguments],
        cwd=folder,
        env=os.environ | {"BROKER": broker, "INBOX": str(inbox)},
    )
    try:
        yield inbox
    finally:
        worker.terminate()
        worker.wait(PATIENCE)


def received(inbox: Path, job: str) -> tuple[str, dict[str, Any]]:
    file = inbox / f"{job}.json"
    wait_until(file.exists, what="the other app received it")
    task_id, envelope = json.loads(file.read_text())
    return task_id, envelope


@pytest.mark.parametrize("queue", ["", "crm-queue"])
async def test_another_app_receives_the_envelope(tmp_path: Path, redis_url: str, sender: Celery, queue: str) -> None:
    done, failed = (f"{kind}-{uuid4().hex}" for kind in ("done", "failed"))
    sent = [
        envelope(done, result={"text": "€" * 1_000_000}, metadata={"customer": 7}),
        envelope(failed, state=JobState.FAILED, error=JobError("rejected", "too long"), attempt=2),
    ]
    handlers = Handlers(HandlerSettings(), sender.send_task, None, destinations=ANYWHERE)  # type: ignore[arg-type]
    target = "celery://crm.store" + (f"?queue={queue}" if queue else "")
    with receiving(tmp_path, redis_url, *(["-Q", queue] if queue else [])) as inbox:
        for each in sent:
            await handlers.deliver(target, each, PATIENCE)
        for each in sent:
            assert received(inbox, each.job_id) == (each.delivery_id, each.data())
    handlers.close()


async def test_the_message_shows_nothing_of_the_result(sender: Celery) -> None:
    queue = f"queue-{uuid4().hex}"
    handlers = Handlers(HandlerSettings(), sender.send_task, None, destinations=ANYWHERE)  # type: ignore[arg-type]
    await handlers.deliver(f"celery://crm.store?queue={queue}", envelope("job-1", result="a secret"), PATIENCE)
    with sender.connection_for_read() as connection:
        message = connection.SimpleQueue(queue).get(timeout=PATIENCE)
    assert "a secret" in str(message.payload)
    assert "a secret" not in str(message.headers)
    assert message.headers["id"] == "job-1#0"
    assert message.headers["ignore_result"]
    handlers.close()


async def test_a_broker_that_is_gone_fails_the_delivery() -> None:
    app = Celery("sender", broker="redis://127.0.0.1:1/0", set_as_current=False)
    handlers = Handlers(HandlerSettings(), app.send_task, None, destinations=ANYWHERE)  # type: ignore[arg-type]
    with pytest.raises(DeliveryFailed, match=r"OperationalError|did not end within 10 s"):
        await handlers.deliver("celery://crm.store", envelope("job-1"), 10)
    handlers.close()
    app.close()
