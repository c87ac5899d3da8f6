"""Redis comes back with older data, as a replica that lagged: what has left is not sent again.

Protected by worker/engine/begun_submits.py.
"""

import os
import shutil
import signal
from pathlib import Path

from outwait.client.store import StoreClient
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import JobState
from tests.patience import until, wait_until
from tests.stack import Stack, ended, query

HANG = 'sandbox:{"faults":[{"fault":"hang_after","on":"submit"}]}'


async def test_what_has_left_is_adopted_or_uncertain_and_never_new(tmp_path: Path) -> None:
    files, kept = tmp_path / "redis" / "appendonlydir", tmp_path / "kept"
    with (
        EmbeddedRedis(tmp_path / "redis", fsync="always") as redis,
        Stack(redis.url, tmp_path, options={"behaviour": {"duration": 2}}) as stack,
    ):
        async with stack.client() as client:
            await client.enqueue(query("answered "), job_id="answered")
            await client.enqueue(query(f"in-flight {HANG}"), job_id="in-flight")
            shutil.copytree(files, kept)
            stack.worker()

            async def both_left() -> bool:
                is_answered = (await client.job("answered")).state is JobState.WAITING
                return is_answered and len(stack.seen("in-flight ")) == 1

            await until(both_left, what="one submit is answered, one is on its way")
            assert redis.pid
            os.kill(redis.pid, signal.SIGKILL)
            wait_until(lambda: not redis.alive, what="Redis is gone")
            redis.stop()
            shutil.rmtree(files)
            shutil.copytree(kept, files)
            redis.start()
            answered = await ended(client, "answered")
            assert (answered.state, answered.ledger.submits) == (JobState.SUCCEEDED, 1)
            assert "adopted" in await events(client, "answered")

            async def is_held() -> bool:
                return "held" in await events(client, "in-flight")

            await until(is_held, what="the other one is held for a person")
        assert (len(stack.seen("answered ")), len(stack.seen("in-flight "))) == (1, 1)
        assert stack.logs().count("store-changed") == 1


async def events(client: StoreClient, job_id: str) -> list[str]:
    return [entry.event for entry in await client.timeline(job_id)]
