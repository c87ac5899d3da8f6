"""A handler that ends its process, blocks for ever, or returns and raises megabytes: it hurts nobody else."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from uuid import uuid4

import psutil
import pytest

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import Delivery, DeliveryState, JobState
from tests.stack import Stack, closed, query, until

LIMIT, LEASE = 8.0, 10.0
MEGABYTES = 40
"""More than what the allocator keeps for itself when it is freed (32)."""

HANDLERS = f"""
import os, threading
from outwait import handler

def poisoned(envelope):
    return "poison" in envelope.job_id

@handler("ends")
def ends(envelope):
    if poisoned(envelope):
        os._exit(7)

@handler("blocks")
def blocks(envelope):
    if poisoned(envelope):
        threading.Event().wait()

@handler("blocks-async")
async def blocks_async(envelope):
    if poisoned(envelope):
        threading.Event().wait()

@handler("floods")
def floods(envelope):
    if "raise" in envelope.job_id:
        raise RuntimeError("x:" * {MEGABYTES << 19})
    return b"x" * {MEGABYTES << 20}

@handler("innocent")
def innocent(envelope):
    pass
"""


class Supervised:
    """A worker that is started again whenever it ends, as a supervisor does."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.worker: subprocess.Popen[bytes] = stack.worker()
        self.ends = 0

    async def watch(self) -> None:
        while True:
            await until(self._ended)
            self.ends += 1
            self.worker = self.stack.worker()

    async def _ended(self) -> bool:
        return self.worker.poll() is not None


@pytest.fixture(scope="module")
def supervised(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    folder = tmp_path_factory.mktemp("poison")
    (folder / "poison_handlers.py").write_text(HANDLERS)
    variables = {
        "OUTWAIT_HANDLERS__MODULES": "poison_handlers",
        "OUTWAIT_DELIVER__TIME_LIMIT": str(LIMIT),
        "OUTWAIT_DELIVER__LEASE": str(LEASE),
        "OUTWAIT_DELIVER__ATTEMPTS": "3",  # two are lost with a worker
    }
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0}}, variables=variables) as stack:
        yield Supervised(stack)


async def enqueued(client: StoreClient, *names: str, target: str) -> None:
    await client.enqueue_many([(query(name, targets=[target]), name) for name in names])


async def delivery(client: StoreClient, name: str) -> Delivery:
    job = await closed(client, name)
    assert job.state is JobState.SUCCEEDED
    (delivery,) = await client.deliveries(name)
    return delivery


async def test_one_that_ends_its_process_takes_no_other_delivery_with_it(supervised: Supervised) -> None:
    """Protected by tasks/deliver.py `_suspect`: a delivery whose workers were lost twice runs in a process of its own.

    Without it, whatever was claimed together with the poison would be given up together with it.
    """
    watching = asyncio.create_task(supervised.watch())
    same = [f"same-{number}" for number in range(6)]
    async with supervised.stack.client() as client:
        await enqueued(client, "poison-ends", *same, target="ends")
        await enqueued(client, "other", target="innocent")
        assert [(await delivery(client, name)).state for name in (*same, "other")] == [DeliveryState.DELIVERED] * 7
        given_up = await delivery(client, "poison-ends")
        assert given_up.state is DeliveryState.DEAD
        assert given_up.error is not None
        assert given_up.error.message == "handler ends ended its process (exit code 7)"
        assert (await client.job("poison-ends")).ledger.submits == 1
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert supervised.ends == 2, "then it ran in a process of its own"


@pytest.mark.parametrize("target", ["blocks", "blocks-async"])
async def test_one_that_blocks_for_ever_holds_up_no_other(supervised: Supervised, target: str) -> None:
    """Protected by tasks/handlers/isolation.py `run`: each call has a thread or a loop, and a time limit."""
    async with supervised.stack.client() as client:
        await enqueued(client, f"{target}-poison", target=target)
        await enqueued(client, f"{target}-1", target="innocent")
        assert (await delivery(client, f"{target}-1")).state is DeliveryState.DELIVERED
        given_up = await delivery(client, f"{target}-poison")
        assert given_up.state is DeliveryState.DEAD
        assert given_up.error is not None
        assert given_up.error.message == f"handler {target} did not end within {LIMIT:g} s"
    assert supervised.worker.poll() is None


async def test_megabytes_that_one_returns_or_raises_are_kept_nowhere(supervised: Supervised) -> None:
    """Protected by tasks/handlers/isolation.py `_called` (what is returned is dropped) and `failure` (cut, then read).

    And by config/masking.py `scrubbed`: a traceback of megabytes is cut before it is searched for secrets.
    """
    names = [f"{kind}-{number}" for kind in ("return", "raise") for number in range(10)]
    async with supervised.stack.client() as client:
        await enqueued(client, "warm", target="innocent")
        await delivery(client, "warm")
        before = psutil.Process(supervised.worker.pid).memory_info().rss
        await enqueued(client, *names, target="floods")
        ends = [await delivery(client, name) for name in names]
        await until(partial(grew_little, supervised, client, before), what="the memory is given back")
    assert [delivery.state for delivery in ends] == [DeliveryState.DELIVERED] * 10 + [DeliveryState.DEAD] * 10
    assert all(len(json.dumps(delivery.error.message)) < 400 for delivery in ends if delivery.error)
    assert "x:" * 20_000 not in supervised.stack.logs()


async def grew_little(supervised: Supervised, client: StoreClient, before: int) -> bool:
    """Whether the worker is small again after some more work: exceptions are garbage until Python collects it."""
    names = [f"more-{uuid4()}" for _ in range(20)]
    await enqueued(client, *names, target="innocent")
    for name in names:
        await delivery(client, name)
    after = psutil.Process(supervised.worker.pid).memory_info().rss
    return (after - before) >> 20 < 4 * MEGABYTES
