"""While one producer attacks, the same worker does another tenant's job, and does not grow."""

import base64
import bz2
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import JobState
from tests.stack import Stack, closed, query, until

MEBIBYTE = 1024 * 1024
OPTIONS = "?key" * 980
"""3.9 KB, for which each masking took 187 s in release 0.2.0."""


class Subject:
    """A stack and its only worker."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.worker: subprocess.Popen[bytes] = stack.worker()

    async def does_anothers_job(self, client: StoreClient) -> None:
        job_id = (await client.enqueue(query("mine", tenant="other"))).job_id
        assert (await closed(client, job_id)).state is JobState.SUCCEEDED
        assert self.worker.poll() is None

    def memory(self) -> int:
        """Bytes that the worker took at most."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture(scope="module")
def subject(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with Stack(redis_url, tmp_path_factory.mktemp("attacks"), options={"behaviour": {"duration": 0}}) as stack:
        yield Subject(stack)


async def test_messages_that_inflate_take_no_memory(subject: Subject) -> None:
    """Protected by worker/celery/inflating.py: each is 300 bytes, and holds 256 MiB."""
    bomb = base64.b64encode(bz2.compress(bytes(256 * MEBIBYTE))).decode()
    stack = subject.stack
    async with stack.client() as client:
        await subject.does_anothers_job(client)
        before = subject.memory()
        names = [f"bomb-{number}" for number in range(3)]
        for name in names:
            headers = {"task": "tasks.submit", "id": name, "compression": "application/x-bz2"}
            message = {"body": bomb, "content-type": "application/json", "headers": headers, "properties": {}}
            await client._store.connection.redis.lpush(stack.settings.intake.queue, json.dumps(message))
        await subject.does_anothers_job(client)

        async def refused() -> bool:
            return set(names) <= {job.id for job in (await client.jobs(limit=100)).jobs}

        await until(refused)
        error = (await client.job(names[0])).error
        assert error is not None
        assert "bytes, after decompression" in error.message
    assert subject.memory() - before < 128 * MEBIBYTE


async def test_texts_that_are_masked_hold_nobody(subject: Subject) -> None:
    """Protected by config/masking.py and worker/net/redaction.py."""
    async with subject.stack.client() as client:
        for number in range(3):
            await client.enqueue(query(f"{number} = {OPTIONS}", tenant="attacker"))
        await subject.does_anothers_job(client)
