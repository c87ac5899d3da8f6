"""A Redis that would lose jobs takes none: each door says what is wrong with it, and nothing is written before.

Protected by `Health.require_fit_once` (worker/store/health.py).

Debian and others have no Redis 6.0 any more: OUTWAIT_TEST_OLD_REDIS names its program. A server that may evict jobs is
refused in the same place.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from outwait import AsyncClient
from outwait.config.exits import Exit
from outwait.worker.local.embedded import HOST, find_server, free_port
from outwait.worker.model.errors import StoreUnfit
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.health import version_finding
from tests.patience import PATIENCE, wait_until
from tests.stack import Stack, query

OLD = os.environ.get("OUTWAIT_TEST_OLD_REDIS")


class Unfit(NamedTuple):
    stack: Stack
    server: Redis
    reason: str

    def written(self) -> set[str]:
        """Keys that are neither Celery's nor those of who may do what."""
        keys = {str(key) for key in self.server.scan_iter()}
        queue = self.stack.settings.intake.queue
        access = (":access", ":keys-limited")
        return {key for key in keys if not key.startswith("_kombu.") and key != queue and not key.endswith(access)}


@pytest.fixture(params=["old", "evicting"])
def unfit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Unfit]:
    if request.param == "old" and not OLD:
        pytest.skip("OUTWAIT_TEST_OLD_REDIS names no Redis 6.0")
    port, evicting = free_port(), ["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]
    program, options = (OLD, []) if request.param == "old" else (str(find_server()), evicting)
    reason = "too old. Use Redis 6.2 or newer, or Valkey" if request.param == "old" else "may evict keys (allkeys-lru)"
    command = [str(program), "--bind", HOST, "--port", str(port), "--dir", str(tmp_path), "--save", "", *options]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,
        Redis(host=HOST, port=port, decode_responses=True) as server,
    ):

        def answers() -> bool:
            with suppress(RedisError):
                return bool(server.ping())
            return False

        try:
            wait_until(answers, what="the server answers")
            with Stack(f"redis://{HOST}:{port}/0", tmp_path) as stack:
                yield Unfit(stack, server, reason)
        finally:
            process.kill()


async def test_every_door_says_it_and_no_job_is_left(unfit: Unfit) -> None:
    stack, reason = unfit.stack, unfit.reason
    words = ["unless", "query", "-p", "query=why?", "-p", "sessionId=s", "-p", "visitorId=v"]
    submit = await asyncio.to_thread(stack.run, "submit", *words)
    assert (submit.returncode, reason in submit.stderr) == (Exit.UNAVAILABLE, True), submit.stderr

    async with AsyncClient(stack.variables["OUTWAIT_REDIS_URL"]) as client:
        with pytest.raises(StoreUnfit) as caught:
            await client.enqueue("unless", "query", query().params)
    assert reason in str(caught.value)

    connection = Connection(stack.settings)
    key = await Access(connection).create("ada", set(Scope))
    await connection.close()
    await asyncio.to_thread(stack.web)
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE) as web:
        for answer in (await web.get("/readyz"), await web.post("/v1/jobs", json=query().model_dump())):
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unfit")
    assert stack.logs("web").count(reason) == 2

    assert unfit.written() <= {f"{{{stack.settings.namespace}}}:used"}


async def test_a_worker_ends_and_leaves_producers_messages_where_they_are(unfit: Unfit) -> None:
    stack, url = unfit.stack, unfit.stack.variables["OUTWAIT_REDIS_URL"]
    queue = stack.settings.intake.queue
    with Celery("shop", broker=url) as producer:
        producer.send_task("tasks.submit", kwargs=query().model_dump(exclude_unset=True), queue=queue)
    worker = stack.worker()
    assert await asyncio.to_thread(worker.wait, PATIENCE) == Exit.UNAVAILABLE
    assert stack.logs().count("redis-unfit") == 1
    assert unfit.reason in stack.logs()
    assert unfit.server.llen(queue) == 1
    assert unfit.written() == set()


def test_doctor_says_it_and_blames_nothing_else(unfit: Unfit) -> None:
    doctor = unfit.stack.run("doctor", "--no-providers")
    assert doctor.returncode == Exit.FAILED
    assert unfit.reason.partition(".")[0] in doctor.stdout
    assert "broker" not in doctor.stdout


@pytest.mark.parametrize(
    ("version", "level"), [("2.8.19", "error"), ("6.0.20", "error"), ("6.2.0", "ok"), ("7.0.15", "ok"), ("10.1", "ok")]
)
def test_the_oldest_version_is_6_2(version: str, level: str) -> None:
    finding = version_finding({"redis_version": version})
    assert finding.level == level
    assert version in finding.message
    assert level == "ok" or "6.2" in finding.advice
