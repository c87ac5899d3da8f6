"""A whole job, from a producer's message to its result, over each way to reach a Redis."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from outwait.worker.local.embedded import HOST, find_server, free_port
from outwait.worker.model.jobs import JobState
from tests.celery_producer import PRODUCER
from tests.patience import PATIENCE, wait_until
from tests.stack import Stack, closed, query


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    port, socket = free_port(), tmp_path / "redis.sock"
    file = tmp_path / "redis.conf"
    file.write_text(f'bind {HOST}\nport {port}\nunixsocket {socket}\nrequirepass "p/w"\ndir "{tmp_path}"\nsave ""\n')
    with subprocess.Popen([str(find_server()), str(file)], stdout=subprocess.DEVNULL) as process:

        def answers() -> bool:
            with suppress(RedisError), Redis(port=port, password="p/w") as redis:
                return bool(redis.ping())
            return False

        try:
            wait_until(answers, what="the server answers")
            yield port, socket
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("url", "producers"),
    [
        ("unix://:p%2Fw@{socket}?db=2", "redis+socket://:p%2Fw@{socket}?virtual_host=2"),
        ("valkey://:p%2Fw@127.0.0.1:{port}/2", "redis://:p%2Fw@127.0.0.1:{port}/2"),
    ],
    ids=["socket", "valkey"],
)
async def test_a_job_goes_its_way(tmp_path: Path, server: tuple[int, Path], url: str, producers: str) -> None:
    port, socket = server
    url, producers = (text.format(port=port, socket=socket) for text in (url, producers))
    with Stack(url, tmp_path) as stack:
        stack.worker()
        async with stack.client() as client:
            job = await closed(client, (await client.enqueue(query("direct"))).job_id)
            assert job.state is JobState.SUCCEEDED
        request = query("by message").model_dump_json(exclude_unset=True)
        command = [sys.executable, "-c", PRODUCER, producers, stack.variables["OUTWAIT_INTAKE__QUEUE"], request]
        sent = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert "by message" in sent.stdout, sent.stderr
        assert "p/w" not in stack.logs()
        assert "p%2Fw" not in stack.logs()
