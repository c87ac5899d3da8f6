"""Nothing is promised before it stands on as many servers, and on as many disks, as the settings ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.local.embedded import HOST, EmbeddedRedis
from outwait.worker.model.errors import StoreUnavailable, StoreUnfit
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.store.store import Store
from tests.patience import wait_until
from tests.stack import query


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedRedis, EmbeddedRedis]]:
    """A master, and a server that can be its replica."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with EmbeddedRedis(folder / "a") as master, EmbeddedRedis(folder / "b") as other:
        yield master, other


def follow(master: EmbeddedRedis, replica: EmbeddedRedis) -> None:
    with Redis.from_url(replica.url) as admin:
        admin.config_set("masterauth", master.password)
        admin.replicaof(HOST, master.port)
    with Redis.from_url(master.url) as admin:
        admin.config_set("repl-diskless-sync-delay", 0)
        wait_until(lambda: "online" in str(admin.info("replication").get("slave0")), what="a replica is online")


def settings_of(server: EmbeddedRedis, **store: object) -> Settings:
    return Settings.model_validate({"redis_url": server.url, "store": {"timeout": 6, **store}})


async def test_a_replica_that_is_missing_is_an_outage_and_a_second_try_proves_nothing(
    servers: tuple[EmbeddedRedis, EmbeddedRedis],
) -> None:
    master, replica = servers
    settings = settings_of(master, replicas=1)
    async with StoreClient(settings) as client, Store.open(settings) as store:
        for _ in range(2):  # the second one writes nothing: the job is there
            with pytest.raises(StoreUnavailable) as caught:
                await client.enqueue(query(), job_id="careful")
            assert caught.value.outage is StoreOutage.TOO_FEW_COPIES
        with pytest.raises(StoreUnavailable):
            await store.connection.probe()
        follow(master, replica)
        try:
            assert (await client.enqueue(query(), job_id="careful")).job_id == "careful"
            await store.connection.probe()
        finally:
            with Redis.from_url(replica.url) as admin:
                admin.replicaof("NO", "ONE")
        with Redis.from_url(replica.url) as admin:
            assert admin.exists("{outwait}:j:careful")


async def test_a_write_is_on_the_masters_disk_and_on_no_other_that_is_missing(
    servers: tuple[EmbeddedRedis, EmbeddedRedis],
) -> None:
    async with StoreClient(settings_of(servers[0], files=1)) as client:
        assert (await client.enqueue(query(), job_id="on-disk")).job_id == "on-disk"
    async with StoreClient(settings_of(servers[0], files=2)) as client:
        with pytest.raises(StoreUnavailable) as caught:
            await client.enqueue(query(), job_id="on-two-disks")
    assert caught.value.outage is StoreOutage.TOO_FEW_COPIES


async def test_files_are_not_asked_of_a_redis_that_writes_none(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, appendonly=False) as server:
        async with StoreClient(settings_of(server, files=1)) as client:
            with pytest.raises(StoreUnfit, match="OUTWAIT_STORE__FILES"):
                await client.enqueue(query())


async def test_doctor_tells_what_a_failover_could_lose(servers: tuple[EmbeddedRedis, EmbeddedRedis]) -> None:
    follow(*servers)
    try:
        for replicas, level in ((0, "warning"), (1, "ok"), (2, "warning")):
            async with Store.open(settings_of(servers[0], replicas=replicas)) as store:
                found = {finding.subject: finding for finding in await store.health.findings()}
            assert found["replicas"].level == level
    finally:
        with Redis.from_url(servers[1].url) as admin:
            admin.replicaof("NO", "ONE")
