"""When the clock looks again: at once while more is due, soon while a lane is busy, and else when the next is due."""

import threading
from collections.abc import Awaitable, Callable

import pytest

from outwait.client.store import StoreClient
from outwait.config.groups import WorkerSettings
from outwait.config.settings import Settings
from outwait.worker.app import Engine
from outwait.worker.engine.clock import GATHER, SETTLE, Clock, Ticking
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.leases import seconds
from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.jobs import Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from outwait.worker.store.outages import log_of
from tests.patience import PATIENCE
from tests.stack import query, until


@pytest.mark.parametrize(("jobs", "wait"), [(0, None), (1, GATHER), (2, 0.0), (3, 0.0)])
async def test_how_soon_the_clock_looks_again(
    settings: Settings, connection: Connection, jobs: int, wait: float | None
) -> None:
    settings = settings.model_copy(update={"worker": WorkerSettings(batch=2)})
    sent: list[int] = []
    clock = Clock(Lanes(connection), Policies(settings, build({})), lambda _lane, claims: sent.append(len(claims)))
    async with StoreClient(settings) as client:
        for _ in range(jobs):
            await client.enqueue(query())
    assert await clock.tick() == wait
    assert sent == ([min(jobs, 2)] if jobs else [])


async def test_an_idle_lane_is_looked_at_when_its_next_item_is_due(settings: Settings, connection: Connection) -> None:
    clock = Clock(Lanes(connection), Policies(settings, build({})), lambda _lane, _claims: None)
    async with StoreClient(settings) as client:
        await client.enqueue(query())
    await clock.tick()
    wait = await clock.tick()  # nothing is due: the lease of the claimed one ends next
    assert wait is not None
    assert wait > settings.submit.lease - 5


async def test_a_process_that_stood_still_renews_its_leases_before_it_claims(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protected by worker/engine/clock.py `_tick`: it would take its own steps for those of a lost worker."""
    sent: list[Lane] = []
    clock = Clock(Lanes(connection), Policies(settings, build({})), lambda lane, _claims: sent.append(lane))
    await clock.tick()
    async with StoreClient(settings) as client:
        await client.enqueue(query())
    now = seconds()
    monkeypatch.setattr("outwait.worker.engine.clock.seconds", lambda: now + settings.poll.lease)
    wait = await clock.tick()
    assert wait is not None
    assert 0 < wait <= SETTLE
    assert sent == []

    async def goes_on() -> bool:
        await clock.tick()
        return sent == [Lane.of(Step.SUBMIT, "unless")]

    await until(goes_on)


async def test_an_outage_that_another_thread_met_is_over_when_the_clock_has_written(
    settings: Settings, connection: Connection
) -> None:
    outages = log_of(settings.redis_url.get_secret_value())
    outages.down(StoreUnavailable("Redis has too few replicas", StoreOutage.NO_REPLICAS))
    clock = Clock(Lanes(connection), Policies(settings, build({})), lambda _lane, _claims: None)
    await clock.tick()
    assert not outages.open


def test_a_signal_never_waits_for_a_thread_that_waits_for_the_interrupted_one() -> None:
    """SIGTERM may come while the main thread holds the lock of the log, which the clock wants next."""
    lock, reached = threading.Lock(), threading.Event()

    async def start_up() -> tuple[Callable[[], Awaitable[float | None]], Callable[[], Awaitable[None]]]:
        async def call() -> float | None:
            reached.set()
            with lock:
                return None

        async def close() -> None: ...

        return call, close

    clock = Ticking("clock", start_up, 0.1)
    engine = Engine(None)
    engine._threads = [clock]
    with lock:
        clock.start()
        assert reached.wait(PATIENCE)
        engine._ask_to_stop()
    clock.join(PATIENCE)
    assert not clock.is_alive()
