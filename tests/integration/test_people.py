"""What people look at and decide, on a real server: a provider's pause, what holds it back, dead deliveries."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import Claim, DeliveryState, JobError, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_FENCE, Dead, End, Fanout, Outage, Pause, Submitted
from outwait.worker.providers.registry import build
from outwait.worker.store import codec
from outwait.worker.store import dead as deadletters
from outwait.worker.store.connection import Connection
from outwait.worker.store.governors import Breaker, GroupStatus
from outwait.worker.store.lanes import Lanes, NewJob
from tests.patience import PATIENCE
from tests.stack import until

SPEC = codec.blob(codec.encode({"params": {}, "targets": [], "metadata": {}}), 1000)
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


class Hands:
    """Does what a worker does."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.lanes = Lanes(connection)
        self.policies = Policies(settings, build(settings.providers))

    async def claim(self, step: Step, name: str = "unless") -> list[Claim]:
        lane = Lane.of(step, name)
        claims = await self.lanes.claim(lane, self.policies.of(lane))
        _, fences = await self.lanes.begin(
            lane, self.policies.of(lane), [(claim.work_id, claim.fence) for claim in claims]
        )
        return [Claim(work_id=claim.work_id, fence=fence) for claim, fence in zip(claims, fences, strict=True)]

    async def enqueue(self, *names: str, provider: str = "unless") -> None:
        jobs = [NewJob(id=name, provider=provider, operation="query", digest="d", spec=SPEC) for name in names]
        await self.lanes.enqueue(jobs)

    async def waiting(self, *names: str) -> None:
        await self.enqueue(*names)
        await self.lanes.record(
            [
                Submitted(work_id=claim.work_id, fence=claim.fence, external_id="x", countdown_ms=0, submits=1)
                for claim in await self.claim(Step.SUBMIT)
            ]
        )

    async def dead(self, target: str, *names: str, provider: str = "unless") -> None:
        """Jobs that ended and whose delivery to `target` was given up."""
        await self.enqueue(*names, provider=provider)
        await self.lanes.record([End(work_id=name, fence=NO_FENCE, state="failed") for name in names])
        callbacks = [claim for _ in range(0, len(names), 10) for claim in await self.claim(Step.CALLBACK, "")]
        await self.lanes.record(
            [Fanout(work_id=claim.work_id, fence=claim.fence, targets=(target,)) for claim in callbacks]
        )
        await self.die(target)

    async def die(self, target: str) -> int:
        """Give up every delivery that is due for `target`."""
        count = 0
        while claims := await self.claim(Step.DELIVER, target):
            count += len(claims)
            await self.lanes.record(
                [
                    Dead(work_id=claim.work_id, fence=claim.fence, error=JobError("gone", "no route").text())
                    for claim in claims
                ]
            )
        return count


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
