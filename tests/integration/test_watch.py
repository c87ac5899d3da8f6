"""Whoever waits for a job's end waits through an outage of the store that is over in time."""

import asyncio

import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import Job
from outwait.worker.store.watch import Watch
from tests.patience import PATIENCE
from tests.stack import query


async def test_the_end_is_read_when_redis_is_back(settings: Settings) -> None:
    async with StoreClient(settings) as client, Watch(settings) as watch:
        job_id = (await client.enqueue(query())).job_id
        asked = asyncio.Event()
        away = True

        async def read(job_id: str) -> Job:
            asked.set()
            if away:
                raise StoreUnavailable("Redis does not answer")
            return await client.job(job_id)

        waiting = asyncio.create_task(watch.end_of(job_id, read, PATIENCE))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        away = False
        await client.cancel(job_id)
        assert (await asyncio.wait_for(waiting, PATIENCE)).state == "cancelled"


async def test_an_outage_that_lasts_is_an_error(settings: Settings) -> None:
    async def read(_job_id: str) -> Job:
        raise StoreUnavailable("Redis does not answer")

    async with Watch(settings) as watch:
        with pytest.raises(StoreUnavailable):
            await watch.end_of("job", read, 0)
