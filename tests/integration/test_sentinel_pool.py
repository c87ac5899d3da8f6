"""Connections ask the sentinels that answer, and leave a server that is the master no more."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from outwait.config.settings import Settings
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.store.connection import Connection
from outwait.worker.store.epoch import epoch_of
from tests.faults.sentinels import Replicated
from tests.patience import wait_until


async def test_many_ask_at_once_while_one_sentinel_after_the_other_goes_away(tmp_path: Path) -> None:
    with Replicated(tmp_path, replicas=1) as redis:
        hosts = urlsplit(redis.url).netloc.rpartition("@")[2].split(",")
        connection = Connection(Settings(redis_url=redis.url, _env_file=None))
        for host in hosts[:-1]:
            redis.kill(int(host.rpartition(":")[2]))
            connection.redis.connection_pool.leave()
            await asyncio.gather(*(connection.redis.ping() for _ in range(30)))
        await connection.close()


async def test_an_error_says_what_each_sentinel_answered(tmp_path: Path) -> None:
    with Replicated(tmp_path, replicas=0) as redis:
        for url, outage in (
            (redis.url.replace("/jobs/", "/others/"), StoreOutage.UNREACHABLE),
            (redis.url.replace("sentinel_password", "sentinel_username=x&sentinel_password"), StoreOutage.LOGIN),
        ):
            connection = Connection(Settings(redis_url=url, _env_file=None))
            with pytest.raises(StoreUnavailable) as caught:
                await connection.probe()
            await connection.close()
            assert caught.value.outage is outage
            assert all(host in str(caught.value) for host in urlsplit(url).netloc.rpartition("@")[2].split(","))
            assert "pw" not in str(caught.value)


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
