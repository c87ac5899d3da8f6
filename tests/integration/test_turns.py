"""The order of a submit lane: tenants take turns, and a tenant's own jobs go by priority, then by age."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from outwait.config.settings import Settings
from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Cancel, Hold, Outage, Release, Retry, Submitted, Uncertain
from outwait.worker.store import codec
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField
from outwait.worker.store.lanes import LanePolicy, Lanes, NewJob
from outwait.worker.store.reads import Reads

SUBMIT = Lane.parse("submit:unless")
POLICY = LanePolicy(batch=16, lease_ms=60_000, cap=1000, provider="unless")
SPEC = codec.blob(b'{"params":{},"targets":[],"metadata":{}}', 100)
OLD_BAND = 10**10


def job(name: str, tenant: str = "", priority: int = 5, countdown_ms: int = 0) -> NewJob:
    return NewJob(
        id=name,
        provider="unless",
        operation="query",
        digest=name,
        spec=SPEC,
        tenant=tenant,
        priority=priority,
        countdown_ms=countdown_ms,
    )


class Subject(NamedTuple):
    connection: Connection
    lanes: Lanes

    async def claim(self, batch: int, **limits: int) -> list[Claim]:
        return await self.lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=batch, **limits))

    async def names(self, batch: int, **limits: int) -> list[str]:
        return [claim.work_id for claim in await self.claim(batch, **limits)]

    async def due(self) -> dict[str, float]:
        rows = await self.connection.redis.zrange(self.connection.keys("DUE", str(SUBMIT)), 0, -1, withscores=True)
        return {name.decode(): score for name, score in rows}

    async def as_release_0_2(self, name: str, tenant: str, priority: int, turn: int) -> None:
        """Store a job as that release did."""
        await self.lanes.enqueue([job(name, tenant, countdown_ms=3_600_000)])
        score = (9 - priority) * OLD_BAND + turn
        await self.connection.redis.zadd(self.connection.keys("DUE", str(SUBMIT)), {name: score})
        await self.connection.redis.zadd(self.connection.keys("LANES"), {str(SUBMIT): score})


@asynccontextmanager
async def subject(redis_url: str) -> AsyncIterator[Subject]:
    connection = Connection(Settings(redis_url=redis_url, namespace=f"t-{uuid4().hex[:8]}", _env_file=None))
    try:
        yield Subject(connection, Lanes(connection))
    finally:
        await connection.close()


@pytest.fixture
async def lane(redis_url: str) -> AsyncIterator[Subject]:
    async with subject(redis_url) as running:
        yield running


def retried(claim: Claim, countdown_ms: int = 0) -> Retry:
    return Retry(work_id=claim.work_id, fence=claim.fence, countdown_ms=countdown_ms, reason="not sent", attempt=1)


TENANT = st.sampled_from(["", "a", "b", "c", "long-name.of@tenant"])
Step = tuple[Any, ...]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("enqueue"), TENANT, st.integers(0, 9), st.integers(1, 12)),
        st.tuples(st.just("claim"), st.integers(1, 9), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
    ),
    max_size=25,
)


class Model:
    """What must come of it, in the simplest form: each tenant's jobs in the order in which they go."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[str, tuple[int, int, int]]] = {}
        self.waits: dict[str, dict[str, int]] = {}
        """By tenant with due work: how often each other one went since its own last job, or since it came."""
        self.number = 0

    def enqueue(self, tenant: str, priority: int) -> NewJob:
        self.number += 1
        name = f"j{self.number}"
        self.jobs[name] = tenant, (-priority, 1, self.number)
        self.waits.setdefault(tenant, defaultdict(int))
        return job(name, tenant, priority)

    def again(self, name: str, tenant: str, priority: int) -> None:
        self.number += 1
        self.jobs[name] = tenant, (priority, 0, self.number)
        self.waits.setdefault(tenant, defaultdict(int))

    def goes(self, name: str) -> tuple[str, int]:
        tenant, place = self.jobs.pop(name)
        own = [other for owner, other in self.jobs.values() if owner == tenant]
        assert place < min(own, default=(10, 0, 0)), f"{name} goes before a better one of its tenant"
        for waiting, counts in self.waits.items():
            if waiting != tenant:
                counts[tenant] += 1
                assert counts[tenant] <= 1, f"{tenant!r} went twice while {waiting!r} waited"
        self.waits[tenant] = defaultdict(int)
        self.forget_idle()
        return tenant, place[0]

    def forget_idle(self) -> None:
        busy = {tenant for tenant, _ in self.jobs.values()}
        self.waits = {tenant: counts for tenant, counts in self.waits.items() if tenant in busy}


@hypothesis_settings(max_examples=60)
@given(steps=STEPS)
def test_whatever_comes_tenants_take_turns_and_priorities_are_their_own(redis_url: str, steps: list[Step]) -> None:
    """Between two jobs of a tenant that has more, each other tenant goes once at most."""
    asyncio.run(check(redis_url, steps))


async def check(redis_url: str, steps: list[Step]) -> None:
    async with subject(redis_url) as lane:
        model = Model()
        for kind, *given in [*steps, *[("claim", 7, False)] * 60]:
            match kind:
                case "enqueue":
                    tenant, priority, number = given
                    await lane.lanes.enqueue([model.enqueue(tenant, priority) for _ in range(number)])
                case "claim":
                    batch, fails = given
                    wanted = min(batch, len(model.jobs))
                    claims = await lane.claim(batch)
                    assert len(claims) == wanted
                    gone = [(claim, *model.goes(claim.work_id)) for claim in claims]
                    if fails and gone:
                        claim, tenant, priority = gone[0]
                        await lane.lanes.record([retried(claim)])
                        model.again(claim.work_id, tenant, priority)
                case "cancel":
                    name = f"j{given[0]}"
                    if model.jobs.pop(name, None):
                        model.forget_idle()
                        await lane.lanes.record([Cancel(work_id=name, error="{}")])
        assert not model.jobs, "nothing stays behind"


def tenants(names: list[str]) -> str:
    return "".join(name[0] for name in names)


async def test_ten_priorities_are_one_turn(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"m{n}", "mixed", n % 10) for n in range(40)])
    await lane.lanes.enqueue([job(f"p{n}", "plain") for n in range(40)])
    names = [name for _ in range(5) for name in await lane.names(4)]
    assert tenants(names) == "mp" * 10
    assert names[::2][:5] == ["m9", "m19", "m29", "m39", "m8"]


async def test_jobs_whose_countdown_ended_take_their_tenant_s_turns(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"f{n}", "flood", 9, countdown_ms=1) for n in range(700)])
    await lane.lanes.enqueue([job("timed", "victim", countdown_ms=1), job("fresh", "other", 0)])
    await asyncio.sleep(0.02)
    assert await lane.names(1) == ["fresh"]
    assert "timed" in [name for _ in range(4) for name in await lane.names(1)]


async def test_a_retry_goes_before_its_tenant_s_backlog_and_keeps_its_priority(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"low{n}", "t", 2) for n in range(3)])
    (first,) = await lane.claim(1)
    await lane.lanes.enqueue([job("high", "t", 7), job("normal", "t")])
    await lane.lanes.record([retried(first)])
    assert await lane.names(9) == ["high", "normal", "low0", "low1", "low2"]


async def test_what_is_given_back_is_late_since_it_was_due(lane: Subject) -> None:
    await lane.lanes.enqueue([job("j", "t", countdown_ms=30)])
    assert await lane.names(1) == []
    await asyncio.sleep(0.05)
    assert await lane.names(1, cap=0) == []
    stored = await Reads(lane.connection).job("j")
    assert stored.due is not None
    assert stored.due - stored.created == pytest.approx(0.03, abs=0.005)
    (claim,) = await lane.claim(1)
    assert claim.due_ms - claim.created_ms == 30


async def test_jobs_of_the_previous_release_take_turns_like_others(lane: Subject) -> None:
    """Its turns were numbers from 0 on, ordered by priority first; a worker of it may enqueue such jobs any time."""
    for n in range(20):
        await lane.as_release_0_2(f"flood{n}", "flood", 9, n)
    await lane.as_release_0_2("low", "victim", 0, 1)
    await lane.lanes.enqueue([job("new", "third", 5)])
    assert sorted(await lane.names(3)) == ["flood0", "low", "new"]
    assert await lane.names(30) == [f"flood{n}" for n in range(1, 20)]
    assert await lane.due() == {}
    assert await lane.connection.redis.hget(lane.connection.keys("JOB", "flood3"), JobField.PRIORITY) == b"9"


async def test_whatever_became_of_the_turns_no_job_stays_behind(lane: Subject) -> None:
    """Protected by worker/store/lua/submits/turns.lua `reline`."""
    await lane.lanes.enqueue([job(f"{tenant}{n}", tenant) for n in range(5) for tenant in "ab"])
    keys = lane.connection.keys
    await lane.connection.redis.delete(keys("TURNS", str(SUBMIT)))
    await lane.names(4)
    names = [name for _ in range(6) for name in await lane.names(4)]
    assert tenants(names) == "ab" * 5
    assert not await lane.connection.redis.exists(keys("TURNS", str(SUBMIT)), keys("LINES", str(SUBMIT)))


async def test_a_line_s_number_is_used_again_only_when_its_line_is_empty(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"a{n}", "a") for n in range(6)])
    last = 450_000 - 1
    await lane.connection.redis.hset(lane.connection.keys("LINES", str(SUBMIT)), "/lines", last)
    await lane.lanes.enqueue([job(f"b{n}", "b", 9) for n in range(6)])
    assert tenants([name for _ in range(4) for name in await lane.names(3)]) == "ab" * 6
    assert await lane.due() == {}


async def test_an_uncertain_job_waits_for_no_gate_and_takes_no_place(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"j{n}") for n in range(4)])
    first, second = await lane.claim(2)
    outage = Outage(provider="unless", reason="500", limit=1, wait_ms=60_000, longest_ms=60_000)
    doubt = [Uncertain(work_id=claim.work_id, fence=claim.fence, reason="500", submits=1) for claim in (first, second)]
    await lane.lanes.record([*doubt, outage])
    limits = {"rate_limit": 1, "rate_window_ms": 60_000, "in_flight": 1}
    claims = await lane.claim(1, **limits)
    claims += await lane.claim(1, **limits)
    assert {(claim.work_id, claim.state) for claim in claims} == {(c.work_id, "uncertain") for c in (first, second)}
    assert await lane.connection.redis.zcard(lane.connection.keys("RATE", "unless")) == 0
    await lane.lanes.record([Hold(work_id=c.work_id, fence=c.fence, reason="a person decides") for c in claims])
    assert await lane.claim(16, **limits) == [], "the breaker is open"


async def test_an_uncertain_job_is_no_probe_and_gives_none_back(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"j{n}", f"t{n}") for n in range(3)])
    (first,) = await lane.claim(1)
    outage = Outage(provider="unless", reason="500", limit=1, wait_ms=1, longest_ms=1)
    await lane.lanes.record([Uncertain(work_id=first.work_id, fence=first.fence, reason="500", submits=1), outage])
    await asyncio.sleep(0.01)
    uncertain, probe = await lane.claim(16)
    assert (uncertain.state, probe.state) == (JobState.UNCERTAIN, JobState.QUEUED)
    await lane.lanes.record([Hold(work_id=first.work_id, fence=uncertain.fence, reason="a person decides")])
    assert await lane.claim(16) == [], "the probe is under way"
    done = Submitted(work_id=probe.work_id, fence=probe.fence, external_id="x", countdown_ms=60_000, submits=1)
    await lane.lanes.record([done])
    assert len(await lane.claim(16)) == 1


async def test_a_paused_provider_s_uncertain_jobs_are_as_many_as_the_lane_s_cap_allows(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"j{n}") for n in range(5)])
    claims = await lane.claim(5)
    await lane.lanes.record(
        [Uncertain(work_id=claim.work_id, fence=claim.fence, reason="500", submits=1) for claim in claims]
    )
    assert len(await lane.claim(16, cap=3)) == 3
    assert await lane.claim(16, cap=3) == []
    lanes, _ = await lane.lanes.due_lanes()
    assert SUBMIT in lanes


async def test_a_job_given_back_by_one_worker_is_its_tenant_s_next(lane: Subject) -> None:
    await lane.lanes.enqueue([job(f"a{n}", "a") for n in range(3)])
    (claim,) = await lane.claim(1)
    await lane.lanes.record([Release(work_id=claim.work_id, fence=claim.fence)])
    assert await lane.names(2) == ["a0", "a1"]
