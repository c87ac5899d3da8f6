"""All sentinels stay known, however many connections ask at once while one of them is away."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from outwait.config.settings import Settings
from outwait.worker.store.connection import Connection
from outwait.worker.store.epoch import epoch_of
from tests.faults.sentinels import Replicated
from tests.patience import wait_until


async def test_no_sentinel_is_lost_when_many_ask_at_once(tmp_path: Path) -> None:
    with Replicated(tmp_path, replicas=1) as redis:
        first = urlsplit(redis.url.partition(",")[0]).port
        assert first
        redis.kill(first)
        connection = Connection(Settings(redis_url=redis.url, _env_file=None))
        pool = connection.redis.connection_pool
        known = {id(sentinel) for sentinel in pool._sentinel.sentinels}
        await asyncio.gather(*(connection.redis.ping() for _ in range(30)))
        assert {id(sentinel) for sentinel in pool._sentinel.sentinels} == known
        await connection.close()


async def test_connections_leave_a_master_that_is_one_no_more(tmp_path: Path) -> None:
    with Replicated(tmp_path, replicas=1) as redis:
        settings = Settings(redis_url=redis.url, _env_file=None)
        connection, epoch = Connection(settings), epoch_of(redis.url)
        before = redis.master
        await asyncio.gather(*(connection.redis.ping() for _ in range(10)))
        await asyncio.to_thread(redis.fail_over)
        await asyncio.to_thread(wait_until, lambda: redis.master not in (0, before), what="another master")
        number = epoch.number
        epoch.begins("another", "somewhere")
        ports = {int((await connection.redis.client_info())["laddr"].rpartition(":")[2]) for _ in range(10)}
        assert ports == {redis.master}
        assert epoch.number > number
        await connection.close()
