"""What people look at and decide, on a real server: a provider's pause, what holds it back, dead deliveries."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import DeliveryState, Step
from outwait.worker.model.outcomes import Outage, Pause
from outwait.worker.store import dead as deadletters
from outwait.worker.store.connection import Connection
from outwait.worker.store.governors import Breaker, GroupStatus
from tests.hands import Hands
from tests.patience import PATIENCE
from tests.stack import until

LIMITS = {"rate_limit": 5, "rate_window": 60, "in_flight": 3, "jobs_in_flight": 4}


@pytest.fixture
def settings(redis_url: str, settings: Settings) -> Settings:
    keys = dict.fromkeys(("api_key", "user_email", "account_id", "website_id"), "k")
    limited = {"unless": keys | LIMITS}
    return settings.model_copy(update={"providers": limited})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[StoreClient]:
    async with StoreClient(settings) as client:
        yield client


@pytest.fixture
def hands(settings: Settings, connection: Connection) -> Hands:
    return Hands(settings, connection)


async def unless(client: StoreClient) -> GroupStatus:
    return next(status for status in await client.providers() if status.provider == "unless")


async def test_an_untouched_provider_has_its_limits_and_nothing_else(client: StoreClient) -> None:
    statuses = {status.provider: status for status in await client.providers()}
    assert set(statuses) == {"ringcentral", "elevateai", "unless"}
    status = statuses["unless"]
    assert (status.rate_limit, status.rate_window, status.in_flight_limit, status.jobs_limit) == (5, 60.0, 3, 4)
    assert (status.rate, status.in_flight, status.jobs) == (0, 0, 0)
    assert (status.breaker, status.paused_until, status.suspended_since) == (Breaker.CLOSED, None, None)
    assert statuses["elevateai"].jobs_limit is None


async def test_what_is_used_of_each_limit_is_shown(client: StoreClient, hands: Hands) -> None:
    await hands.waiting("a", "b")
    await hands.enqueue("c")
    assert len(await hands.claim(Step.SUBMIT)) == 1
    status = await unless(client)
    assert (status.rate, status.in_flight, status.jobs) == (3, 1, 2)


async def test_a_paused_provider_gets_nothing_and_goes_on_at_once_when_resumed(
    client: StoreClient, hands: Hands
) -> None:
    await hands.waiting("a")
    await hands.enqueue("b")
    await client.pause("unless", "the invoice is wrong")
    assert await hands.claim(Step.SUBMIT) == []
    assert await hands.claim(Step.POLL) == []
    status = await unless(client)
    assert status.suspended_since is not None
    assert status.suspended_why == "the invoice is wrong"
    lanes, _ = await hands.lanes.due_lanes()
    assert lanes == []  # not looked at again soon: a paused provider costs nothing
    assert await client.resume("unless")
    lanes, _ = await hands.lanes.due_lanes()
    assert sorted(map(str, lanes)) == ["poll:unless", "submit:unless"]
    assert [claim.work_id for claim in await hands.claim(Step.POLL)] == ["a"]
    assert [claim.work_id for claim in await hands.claim(Step.SUBMIT)] == ["b"]
    assert (await unless(client)).suspended_since is None


async def test_a_pause_stops_its_provider_alone_and_outlives_a_resume_of_nothing(
    client: StoreClient, hands: Hands
) -> None:
    await client.pause("elevateai")
    await hands.enqueue("a")
    assert len(await hands.claim(Step.SUBMIT)) == 1
    assert not await client.resume("unless")
    assert await client.resume("elevateai")


async def test_a_misspelt_provider_is_told(client: StoreClient) -> None:
    for question in (client.pause("unles"), client.resume("unles"), client.dead(provider="unles")):
        with pytest.raises(InvalidRequest, match="unless"):
            await question


async def test_silence_that_the_provider_asked_for_is_shown_until_it_is_over(client: StoreClient, hands: Hands) -> None:
    await hands.lanes.record([Pause(provider="unless", pause_ms=2000, reason="unless asked for 2 s of silence")])
    status = await unless(client)
    assert status.paused_until is not None
    assert status.paused_why == "unless asked for 2 s of silence"

    async def over() -> bool:
        return (await unless(client)).paused_until is None

    await until(over)


async def test_the_breaker_is_shown_closed_open_and_probing(client: StoreClient, hands: Hands) -> None:
    outage = Outage(provider="unless", reason="connection refused", limit=2, wait_ms=2000, longest_ms=10_000)
    await hands.lanes.record([outage])
    assert ((status := await unless(client)).breaker, status.outages) == (Breaker.CLOSED, 1)
    await hands.lanes.record([outage])
    status = await unless(client)
    assert (status.breaker, status.outages, status.breaker_why) == (Breaker.OPEN, 2, "connection refused")
    assert status.breaker_until is not None

    async def probing() -> bool:
        return (await unless(client)).breaker is Breaker.PROBING

    await until(probing)


async def test_dead_deliveries_are_found_by_target_provider_and_time(client: StoreClient, hands: Hands) -> None:
    await hands.dead("crm", "a")
    await hands.dead("file:b.jsonl", "b")
    await hands.dead("crm", "c", provider="elevateai")
    everything = await client.dead()
    assert [delivery.job_id for delivery in everything] == ["c", "b", "a"]
    assert [delivery.provider for delivery in everything] == ["elevateai", "unless", "unless"]
    assert [delivery.job_id for delivery in await client.dead(target="file://b.jsonl")] == ["b"]
    assert [delivery.job_id for delivery in await client.dead(target="crm", provider="unless")] == ["a"]
    assert [delivery.job_id for delivery in await client.dead(since=everything[1].died)][-1] == "b"
    assert await client.dead(since=everything[0].died + 1) == []
    assert len(await client.dead(2)) == 2


async def test_dead_deliveries_come_page_by_page_each_once_whatever_is_replayed_meanwhile(
    client: StoreClient, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "PAGE", 3)
    await hands.dead("crm", *(f"crm-{n}" for n in range(10)))  # all in one millisecond
    await hands.dead("billing", *(f"billing-{n}" for n in range(10)))
    first = await client.dead_page(4)
    assert first.cursor == first.deliveries[-1].cursor
    await client.replay(first.deliveries[-1].job_id)
    shown, cursor = first.deliveries, first.cursor
    while cursor:
        more = await client.dead_page(4, cursor)
        assert 1 <= len(more.deliveries) <= 4
        shown, cursor = shown + more.deliveries, more.cursor
    assert len({delivery.id for delivery in shown}) == len(shown) == 20
    assert shown == sorted(shown, key=lambda delivery: (delivery.died, delivery.id), reverse=True)
    crm = await client.dead_page(7, target="crm")
    assert len((await client.dead_page(7, crm.cursor, target="crm")).deliveries) == 3
    with pytest.raises(InvalidRequest, match="no cursor"):
        await client.dead_page(4, "1/x")


async def test_many_are_replayed_page_by_page_and_each_once(
    client: StoreClient, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "PAGE", 4)
    await hands.dead("crm", *(f"crm-{n}" for n in range(15)))
    await hands.dead("billing", *(f"billing-{n}" for n in range(15)))
    assert await client.replay_all(target="crm") == 15
    assert {delivery.target for delivery in await client.dead(100)} == {"billing"}
    assert await client.replay_all(target="crm") == 0
    assert await hands.die("crm") == 15
    assert await client.replay_all() == 30
    assert await client.dead() == []
    assert [delivery.state for delivery in await client.deliveries("crm-7")] == [DeliveryState.PENDING]


async def test_what_dies_again_during_a_replay_is_not_repeated_for_ever(
    client: StoreClient, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "PAGE", 2)
    await hands.dead("crm", *(f"j-{n}" for n in range(9)))
    repeat = client._replays._repeat

    async def and_die(page: list[deadletters.DeadDelivery]) -> int:
        count = await repeat(page)
        await hands.die("crm")
        return count

    monkeypatch.setattr(client._replays, "_repeat", and_die)
    assert await asyncio.wait_for(client.replay_all(), PATIENCE) == 9
