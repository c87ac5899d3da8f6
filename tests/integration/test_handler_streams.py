"""Deliveries to Redis streams: a real server, and the store's own writer."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from outwait import DeliveryFailed, Envelope
from outwait.config.groups import HandlerSettings
from outwait.config.settings import Settings
from outwait.tasks.handlers.delivery import Handlers
from outwait.worker.model.jobs import JobState
from outwait.worker.store.connection import Connection
from outwait.worker.store.streams import Streams
from tests.destinations import ANYWHERE


def envelope(job: str, result: Any = None) -> Envelope:
    return Envelope(
        delivery_id=f"{job}#0",
        job_id=job,
        provider="unless",
        operation="query",
        state=JobState.SUCCEEDED,
        created=1.0,
        result=result,
    )


@pytest.fixture
def handlers(connection: Connection) -> Handlers:
    return Handlers(HandlerSettings(), lambda *_: None, Streams(connection), destinations=ANYWHERE)


async def test_an_entry_has_the_ids_and_the_envelope(handlers: Handlers, connection: Connection) -> None:
    key = f"results:{uuid4().hex}"
    sent = [envelope("job-1", {"text": "€"}), envelope("job-2", "x" * 3_000_000)]
    for each in sent:
        await handlers.deliver(f"stream://{key}", each, 10)
    entries = [fields for _, fields in await connection.redis.xrange(key)]
    assert [(entry[b"delivery_id"], entry[b"job_id"]) for entry in entries] == [
        (b"job-1#0", b"job-1"),
        (b"job-2#0", b"job-2"),
    ]
    assert [msgspec.json.decode(entry[b"envelope"], type=Envelope) for entry in entries] == sent
    await connection.redis.delete(key)


async def test_maxlen_trims_the_oldest(handlers: Handlers, connection: Connection) -> None:
    key = f"results:{uuid4().hex}"
    for number in range(500):
        await handlers.deliver(f"stream://{key}?maxlen=10", envelope(f"job-{number}"), 10)
    assert 10 <= await connection.redis.xlen(key) < 250  # whole nodes of the stream go, so about 10
    assert (await connection.redis.xrevrange(key, count=1))[0][1][b"job_id"] == b"job-499"
    await connection.redis.delete(key)


async def test_a_key_of_another_type_fails_the_delivery(handlers: Handlers, connection: Connection) -> None:
    key = f"results:{uuid4().hex}"
    await connection.redis.rpush(key, "taken")
    with pytest.raises(DeliveryFailed, match="WRONGTYPE"):
        await handlers.deliver(f"stream://{key}", envelope("job-1"), 10)
    await connection.redis.delete(key)


async def test_a_server_that_is_gone_fails_the_delivery() -> None:
    gone = Connection(Settings(redis_url="redis://127.0.0.1:1/0", _env_file=None))  # type: ignore[arg-type]
    handlers = Handlers(HandlerSettings(), lambda *_: None, Streams(gone), destinations=ANYWHERE)
    with pytest.raises(DeliveryFailed, match="StoreUnavailable"):
        await handlers.deliver("stream://results", envelope("job-1"), 10)
    await gone.close()
