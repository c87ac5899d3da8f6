"""One tenant's backlog of 100,000 jobs, and another tenant's single job."""

from pathlib import Path

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.model.jobs import NORMAL
from outwait.worker.model.lanes import Lane
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from tests.stack import query

BACKLOG, TOGETHER = 100_000, 2_000
LANE = Lane.parse("submit:unless")


async def test_a_backlog_of_100_000_jobs_holds_up_nobody_elses(tmp_path: Path) -> None:
    """Protected by worker/store/lua/submits: `line_up` in lines.lua, and `next_turns` in turns.lua."""
    with EmbeddedRedis(tmp_path) as redis:
        settings = Settings(redis_url=redis.url, _env_file=None)
        connection = Connection(settings)
        lanes, policy = Lanes(connection), Policies(settings, build({})).of(LANE)
        async with StoreClient(settings) as client:
            frequent, once = query(tenant="many"), query(tenant="once")
            for start in range(0, BACKLOG, TOGETHER):
                await client.enqueue_many([(frequent, f"many-{n}") for n in range(start, start + TOGETHER)])
            first = [claim.work_id for claim in await lanes.claim(LANE, policy)]
            await client.enqueue(once, job_id="once")
            await client.enqueue(query(tenant="many", priority=NORMAL + 1), job_id="urgent")
            before = await cpu(connection)
            second = [claim.work_id for claim in await lanes.claim(LANE, policy)]
            took = await cpu(connection) - before
            assert (await client.counts())["unless"]["queued"] == BACKLOG + 2
        await connection.close()
    assert first == [f"many-{n}" for n in range(policy.batch)]
    assert second[0] == "urgent"
    assert "once" in second[:3]
    assert took < 0.1, "a claim does not look through the backlog"


async def cpu(connection: Connection) -> float:
    """Seconds of CPU that the server has used: how busy the machine is does not count."""
    used = await connection.redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])
