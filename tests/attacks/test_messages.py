"""A producer's message cannot take a worker's memory or time, and none goes from worker to worker for ever.

A message of 1.3 KB took 2.6 GiB in release 0.2.0; the worker died, and the next one took the message.
"""

import base64
import bz2
import json
import lzma
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from typing import Any

import pytest
from kombu import compression
from kombu.message import Message

from outwait.config.settings import Settings
from outwait.worker.celery import inflating
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.intake import PARKED_SHOWN, TAKES, Intake
from outwait.worker.engine.messages import CONTENT_MAX, decode, message_max
from outwait.worker.providers.registry import build
from outwait.worker.store.inbox import TakeLimits, Taken, lists_of
from outwait.worker.store.store import Store
from tests.patience import until

MEBIBYTE = 1024 * 1024
INFLATED = 32 * MEBIBYTE
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lambda data: lzma.compress(data, preset=0),
}
LIMITS = TakeLimits(100, message_max(1000), 100)


@cache
def bomb(name: str) -> bytes:
    return PACKERS[name](bytes(INFLATED))


def envelope(body: bytes, job_id: str = "j-1", compressed: str = "", **changes: Any) -> bytes:
    headers = {"task": "tasks.submit", "id": job_id} | ({"compression": compressed} if compressed else {})
    message = {"content-type": "application/json", "content-encoding": "utf-8", "properties": {}, "headers": headers}
    return json.dumps({"body": base64.b64encode(body).decode(), **message, **changes}).encode()


def asked(**kwargs: Any) -> bytes:
    request = {"provider": "unless", "operation": "query", "params": {"query": "why?"}}
    return json.dumps([[], request | kwargs, {}]).encode()


def peak(act: Callable[[], object]) -> int:
    """Bytes that it takes at most."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_whatever_kombu_inflates_has_a_limit_here() -> None:
    known = {*PACKERS, "application/zstd", "application/x-brotli"}
    assert set(PACKERS) <= set(compression.encoders()) <= known


@pytest.mark.parametrize("name", PACKERS)
def test_a_message_is_inflated_up_to_a_limit_only(name: str) -> None:
    """Protected by worker/celery/inflating.py `inflated`."""
    message = envelope(bomb(name), compressed=name)

    def read() -> None:
        assert f"more than {CONTENT_MAX} bytes" in decode(message, 0.0).refusal

    assert peak(read) < 6 * CONTENT_MAX
    small = envelope(PACKERS[name](asked()), compressed=name)
    assert decode(small, 0.0).request["params"] == {"query": "why?"}
    incomplete = envelope(PACKERS[name](asked())[:-1], compressed=name)
    assert decode(incomplete, 0.0).refusal.startswith("compression: the data is incomplete")


def test_a_head_that_asks_for_a_huge_dictionary_gets_none() -> None:
    """Protected by worker/celery/inflating.py `LZMA_MEMORY`: the decoder would take 1.5 GiB at once."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]
    packed = bytearray(lzma.compress(asked(), check=lzma.CHECK_NONE, filters=filters))
    header = packed[12 : 12 + (packed[12] + 1) * 4]
    header[4] = 40  # the size of the dictionary: 4 GiB
    header[-4:] = zlib.crc32(bytes(header[:-4])).to_bytes(4, "little")
    packed[12 : 12 + len(header)] = header
    refusal = decode(envelope(bytes(packed), compressed="application/x-lzma"), 0.0).refusal
    assert "Memory usage limit exceeded" in refusal


@pytest.mark.parametrize("content_type", ["application/data", "application/text", "", None])
def test_no_codec_of_pythons_is_undone(content_type: str | None) -> None:
    """Protected by worker/engine/messages.py `_content`: kombu gives what is no JSON to `codecs.decode`."""
    message = envelope(bomb("application/x-bz2"), **{"content-type": content_type, "content-encoding": "bz2"})

    def read() -> None:
        assert "must be JSON" in decode(message, 0.0).refusal

    assert peak(read) < MEBIBYTE


def test_kombu_itself_inflates_up_to_a_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protected by worker/celery/inflating.py `bound`: on RabbitMQ, and in the queues of steps, Celery reads them."""
    for registered in (compression._encoders, compression._decoders):
        for name, code in registered.items():
            monkeypatch.setitem(registered, name, code)
    inflating.bound(1000)
    packed = bomb("application/x-bz2")

    def read() -> None:
        message = Message(body=packed, headers={"compression": "application/x-bz2"}, content_type="application/json")
        assert "more than 1000 bytes" in str(message.errors[0][1])
        text = Message(
            body=packed, content_type="application/data", content_encoding="bz2", accept={"application/json"}
        )
        assert text.decode() == packed

    assert peak(read) < MEBIBYTE


@pytest.mark.parametrize("name", ["priority", "version"])
def test_a_number_is_not_written_out(name: str) -> None:
    """Protected by worker/engine/messages.py `_with_floats`: 1e99999999 as an integer takes hours to make."""
    number = {"__type__": "decimal", "__value__": "1e99999999"}
    request = decode(envelope(asked(**{name: number})), 0.0).request
    assert request[name] == float("inf")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    intake = settings.intake.model_copy(update={"lease": 0.001, "queue": f"in-{settings.namespace}"})
    async with Store.open(settings.model_copy(update={"intake": intake})) as store:
        yield store


def intake_of(store: Store) -> Intake:
    """An intake that only parks: it makes no rows in Flower."""
    acceptance = Acceptance(build(store.settings.providers), store.settings)
    return Intake(store.lanes, store.inbox, acceptance, None, None, store.settings.intake)  # type: ignore[arg-type]


async def put(store: Store, *messages: bytes) -> list[str]:
    await store.connection.redis.lpush(store.settings.intake.queue, *messages)
    return lists_of(store.settings.intake.queue)


async def test_a_message_whose_workers_died_comes_by_itself_and_is_parked_after_three(store: Store) -> None:
    """Protected by worker/store/lua/take_in.lua (it counts) and worker/engine/intake.py `_check`."""
    queues = await put(store, envelope(asked(), "deadly"), envelope(asked(), "innocent"))

    async def taken_again() -> Sequence[Taken]:
        return (await store.inbox.take(queues, LIMITS)).messages

    deadly, innocent = (await store.inbox.take(queues, LIMITS)).messages  # and this worker died
    assert (deadly.takes, innocent.takes) == (0, 0)
    takes = [0]
    while takes[-1] < TAKES - 1:
        (message,) = await until(taken_again)
        if message.name == innocent.name:
            await store.inbox.park(message.name, "read without harm", "")
            assert message.takes == 1
        else:
            takes.append(message.takes)
    assert takes == list(range(TAKES))
    intake = intake_of(store)

    async def parked() -> list[str]:
        await intake.take()
        return [message.reason for message in await store.inbox.parked() if "deadly" in message.message]

    (reason,) = await until(parked)
    assert reason.startswith("3 workers died, or stood still until its lease ended")
    keys = store.connection.keys
    assert not await store.connection.redis.exists(keys("IN_TAKES"), keys("IN_LEASED"), keys("IN_MESSAGES"))


async def test_a_message_that_could_be_read_is_not_parked_for_an_outage(store: Store) -> None:
    """Protected by worker/engine/intake.py `_record_taken`."""
    queues = await put(store, envelope(asked(), "patient"))
    name = (await store.inbox.take(queues, LIMITS)).messages[0].name

    async def taken_again() -> Sequence[Taken]:
        return (await store.inbox.take(queues, LIMITS, [name])).messages

    for _ in range(TAKES + 2):
        (message,) = await until(taken_again)
        assert message.takes == 1


async def test_a_message_of_megabytes_is_not_read(store: Store) -> None:
    """Protected by worker/store/lua/take_in.lua: only its beginning leaves Redis."""
    huge = envelope(b" " * 2 * message_max(store.settings.store.params_max), "huge")
    queues = await put(store, huge)
    intake = intake_of(store)
    await intake.take()
    (message,) = await store.inbox.parked()
    assert message.reason.startswith(f"the message has {len(huge)} bytes; more than ")
    assert len(message.message) <= PARKED_SHOWN
    assert not (await store.inbox.take(queues, LIMITS)).messages
