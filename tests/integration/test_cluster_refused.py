"""A node of a Redis Cluster, and a Sentinel, are recognised wherever jobs could be accepted or run."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from outwait.config.exits import Exit
from outwait.worker.local.embedded import HOST, find_server, free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE, wait_until
from tests.stack import Stack, query

SLOTS = 16384


@contextmanager
def server(folder: Path, lines: list[str], *options: str) -> Iterator[int]:
    port = free_port()
    file = folder / "server.conf"
    file.write_text("\n".join([f"bind {HOST}", f"port {port}", f'dir "{folder}"', *lines]) + "\n")
    with subprocess.Popen([str(find_server()), str(file), *options], stdout=subprocess.DEVNULL) as process:

        def answers() -> bool:
            with suppress(RedisError), Redis(host=HOST, port=port) as redis:
                return bool(redis.ping())
            return False

        try:
            wait_until(answers, what="the server answers")
            yield port
        finally:
            process.kill()


@pytest.fixture
def stack_of_a_cluster(tmp_path: Path) -> Iterator[Stack]:
    with server(tmp_path, ["cluster-enabled yes", "cluster-port " + str(free_port())]) as port:
        with Redis(host=HOST, port=port, decode_responses=True) as admin:
            admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
            wait_until(lambda: admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok", what="the cluster")
        with Stack(f"redis://{HOST}:{port}/0", tmp_path) as stack:
            yield stack


async def test_no_job_is_accepted_where_none_can_run(stack_of_a_cluster: Stack) -> None:
    stack = stack_of_a_cluster
    words = ["unless", "query", "-p", "query=why?", "-p", "sessionId=s", "-p", "visitorId=v"]
    submit = stack.run("submit", *words)
    assert submit.returncode == Exit.UNAVAILABLE
    assert "Redis Cluster" in submit.stderr
    doctor = stack.run("doctor", "--no-providers")
    assert doctor.returncode == Exit.FAILED
    assert "Redis Cluster" in doctor.stdout
    worker = stack.worker()
    assert worker.wait(PATIENCE) == Exit.UNAVAILABLE
    assert "Redis Cluster" in stack.logs()
    stack.web()
    connection = Connection(stack.settings)
    key = await Access(connection).create("ada", set(Scope))
    await connection.close()
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE) as web:
        answer = await web.post("/v1/jobs", json=query().model_dump())
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unfit")
    assert "Redis Cluster" in stack.logs("web")


def test_a_sentinel_is_no_redis(tmp_path: Path) -> None:
    lines = ["sentinel monitor jobs 127.0.0.1 1 1"]
    with (
        server(tmp_path, lines, "--sentinel") as port,
        Stack(f"redis://{HOST}:{port}/0", tmp_path) as stack,
    ):
        doctor = stack.run("doctor", "--no-providers")
    assert doctor.returncode == Exit.FAILED
    assert "sentinel://" in doctor.stdout + doctor.stderr
