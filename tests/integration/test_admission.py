"""Admission of deliveries to their lanes: how many at once, whose turn it is, and what becomes of those that wait."""

from collections.abc import Sequence
from typing import Any

import pytest

from outwait.config.settings import Settings
from outwait.worker.model.jobs import Claim, DeliveryState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import NO_FENCE, Dead, Delivered, End, Fanout, Outcome, Redeliver, Replay, Repoll
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import NewJob
from outwait.worker.store.store import Store
from tests.hands import SPEC, Hands
from tests.patience import until

A, B = "https://a.example", "https://b.example"
ERROR = '{"code":"delivery_failed","message":"no"}'


@pytest.fixture
def settings(redis_url: str, settings: Settings) -> Settings:
    deliver = settings.deliver.model_copy(update={"per_tenant": 4, "per_host": 2})
    return settings.model_copy(update={"deliver": deliver})


class Deliveries(Hands):
    """One worker, and the store that it works on."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        super().__init__(settings, connection)
        self.store = Store(connection)
        self.redis = connection.redis
        self.keys = connection.keys

    async def fan_out(self, job_id: str, targets: Sequence[str], tenant: str = "t") -> None:
        job = NewJob(id=job_id, provider="unless", operation="query", digest="d", spec=SPEC, tenant=tenant)
        await self.lanes.enqueue([job])
        await self.lanes.record([End(work_id=job_id, fence=NO_FENCE, state="failed")])
        (claim,) = await self.claim(Step.CALLBACK, "")
        await self.lanes.record([Fanout(work_id=claim.work_id, fence=claim.fence, targets=tuple(targets))])
        await self.a_millisecond()

    async def admitted(self) -> list[str]:
        """The targets in whose lanes something stands."""
        lanes = await self.store.reads.active_lanes()
        return sorted(lane.name for lane in lanes if lane.step is Step.DELIVER)

    async def ends(self, target: str, outcome: type[Outcome] = Delivered, **fields: Any) -> Claim:
        """Run the delivery to a target."""
        (claim,) = await self.claim(Step.DELIVER, target)
        await self.lanes.record([outcome(work_id=claim.work_id, fence=claim.fence, **fields)])  # type: ignore[call-arg]
        await self.lanes.claim(Lane.of(Step.DELIVER, target), self.policies.of(Lane.of(Step.DELIVER, target)))
        await self.a_millisecond()
        return claim

    async def a_millisecond(self) -> None:
        """Turns are ordered by milliseconds of Redis's clock."""
        began = await self.store.connection.now_ms()

        async def over() -> bool:
            return await self.store.connection.now_ms() > began

        await until(over)

    async def waiting(self) -> int:  # type: ignore[override]
        return (await self.store.reads.backlog()).waiting


@pytest.fixture
def deliveries(settings: Settings, connection: Connection) -> Deliveries:
    connection.settings = settings
    return Deliveries(settings, connection)


def urls(host: str, count: int) -> list[str]:
    return [f"{host}/{number}" for number in range(count)]


async def test_a_host_has_room_for_some_a_tenant_for_more_and_another_tenant_has_its_own(
    deliveries: Deliveries,
) -> None:
    await deliveries.fan_out("flood", [*urls(A, 6), *urls(B, 6), "https://c.example/0"])
    assert await deliveries.admitted() == [*urls(A, 2), *urls(B, 2)]
    assert await deliveries.waiting() == 9
    await deliveries.fan_out("other", [f"{A}/other"], tenant="o")
    await deliveries.fan_out("nobody's", [f"{A}/nobody"], tenant="")
    assert {f"{A}/other", f"{A}/nobody"} <= set(await deliveries.admitted())


async def test_what_ends_leaves_its_room_to_the_next_and_hosts_take_turns(deliveries: Deliveries) -> None:
    """Protected by record/admission.lua `admit_waiting`: the host that had the last turn is not the next."""
    await deliveries.fan_out("flood", [*urls(A, 6), *urls(B, 2), "https://c.example/0", "https://d.example/0"])
    await deliveries.ends(f"{A}/0")
    assert await deliveries.admitted() == [f"{A}/1", f"{A}/2", *urls(B, 2)]
    await deliveries.ends(f"{A}/1")
    assert await deliveries.admitted() == [f"{A}/2", *urls(B, 2), "https://c.example/0"]
    await deliveries.ends(f"{B}/0", Dead, error=ERROR)
    assert await deliveries.admitted() == [f"{A}/2", f"{B}/1", "https://c.example/0", "https://d.example/0"]
    for target in (f"{B}/1", "https://c.example/0", "https://d.example/0"):
        await deliveries.ends(target)
    assert await deliveries.admitted() == [f"{A}/2", f"{A}/3"]
    for target in urls(A, 6)[2:]:
        await deliveries.ends(target)
    assert await deliveries.admitted() == []
    assert (await deliveries.store.reads.job("flood")).closed
    assert await leftovers(deliveries) == []


async def leftovers(deliveries: Deliveries) -> list[str]:
    """Keys of admission that stand for nothing any more."""
    names = [key.decode() async for key in deliveries.redis.scan_iter(f"{deliveries.keys.root}*")]
    return [name for name in names if name.removeprefix(deliveries.keys.root).startswith(("adm:", "b"))]


@pytest.mark.parametrize(
    "target", ["crm", "file:{}.jsonl", "stream://outwait-stream:{}", "celery://t?queue=outwait-queue:{}"]
)
async def test_other_targets_share_their_tenant_s_room_by_kind_or_name(deliveries: Deliveries, target: str) -> None:
    for number in range(6):
        await deliveries.fan_out(f"job-{number}", [target.format(number)])
    assert await deliveries.waiting() == 2
    await deliveries.fan_out("another", ["erp", f"{A}/0"])
    assert await deliveries.waiting() == 2


async def test_a_retry_holds_no_room_and_comes_back_in_its_time(deliveries: Deliveries) -> None:
    await deliveries.fan_out("flood", urls(A, 3))
    claim = await deliveries.ends(f"{A}/0", Redeliver, countdown_ms=50, error=ERROR)
    assert await deliveries.admitted() == [f"{A}/1", f"{A}/2"]
    await deliveries.ends(f"{A}/1")

    async def back() -> bool:
        await deliveries.lanes.due_lanes()
        return await deliveries.admitted() == [f"{A}/0", f"{A}/2"]

    await until(back)
    (again,) = await deliveries.claim(Step.DELIVER, f"{A}/0")
    assert again.work_id == claim.work_id


async def test_due_lanes_say_when_the_next_retry_comes(deliveries: Deliveries) -> None:
    await deliveries.fan_out("one", [f"{A}/0"])
    await deliveries.ends(f"{A}/0", Redeliver, countdown_ms=5_000, error=ERROR)
    lanes, wait = await deliveries.lanes.due_lanes()
    assert Step.DELIVER not in {lane.step for lane in lanes}
    assert wait is not None
    assert 0 < wait <= 5
    assert (await deliveries.store.reads.backlog())[1:3] == (0, 1)


async def test_room_that_a_worker_of_another_release_did_not_give_back_is_found(deliveries: Deliveries) -> None:
    """Protected by record/admission.lua `prune`: a release without it records the end of a delivery and no more."""
    await deliveries.fan_out("flood", urls(A, 3))
    for target in urls(A, 2):
        (claim,) = await deliveries.claim(Step.DELIVER, target)
        await deliveries.redis.hset(deliveries.keys("DELIVERY", claim.work_id), "st", "delivered")
        await deliveries.redis.zrem(deliveries.keys("LEASED", f"deliver:{target}"), claim.work_id)
    for key in [key async for key in deliveries.redis.scan_iter(f"{deliveries.keys.root}adm:*")]:
        await deliveries.redis.zadd(key, dict.fromkeys(await deliveries.redis.zrange(key, 0, -1), 1))  # long ago
    await deliveries.redis.zadd(deliveries.keys("BACKLOGS"), {"t/https:": 1})
    await deliveries.redis.zadd(deliveries.keys("BACKLOG_HOSTS", "t/https:"), {A: 1})

    async def admitted() -> bool:
        await deliveries.redis.zadd(deliveries.keys("BACKLOG_HOSTS", "t/https:"), {A: 1}, xx=True)
        await deliveries.redis.zadd(deliveries.keys("BACKLOGS"), {"t/https:": 1}, xx=True)
        await deliveries.lanes.due_lanes()
        return f"{A}/2" in await deliveries.admitted()

    await until(admitted)


async def test_a_repolled_job_s_deliveries_wait_no_longer(deliveries: Deliveries) -> None:
    await deliveries.fan_out("flood", urls(A, 5))
    await deliveries.redis.hset(deliveries.keys("JOB", "flood"), "x", "external")
    await deliveries.lanes.record([Repoll(work_id="flood", min_interval_ms=0)])
    assert await deliveries.waiting() == 0
    assert await leftovers(deliveries) == []


async def test_a_replay_takes_its_turn(deliveries: Deliveries) -> None:
    await deliveries.fan_out("dead", urls(A, 2))
    for target in urls(A, 2):
        await deliveries.ends(target, Dead, error=ERROR)
    await deliveries.fan_out("flood", [*urls(f"{A}:8443", 2), f"{A}/x", f"{A}/y"])
    await deliveries.lanes.record([Replay(work_id="dead#1"), Replay(work_id="dead#2")])
    assert await deliveries.waiting() == 2
    await deliveries.ends(f"{A}/x")
    await deliveries.ends(f"{A}/y")
    for target in urls(A, 2):
        await deliveries.ends(target)
    states = [each.state for each in await deliveries.store.reads.deliveries("dead")]
    assert states == [DeliveryState.DELIVERED] * 2


async def test_the_work_of_one_look_does_not_grow_with_what_waits(deliveries: Deliveries) -> None:
    for number in range(50):
        await deliveries.fan_out(f"flood-{number}", [f"https://h{number}-{name}.example/" for name in range(20)])

    async def calls() -> int:
        stats = await deliveries.redis.info("commandstats")
        return sum(int(row["calls"]) for row in stats.values())

    await deliveries.lanes.due_lanes()
    before = await calls()
    await deliveries.lanes.due_lanes()
    assert await calls() - before < 100
    assert len(await deliveries.admitted()) == 4
