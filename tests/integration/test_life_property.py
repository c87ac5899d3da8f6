"""Random interleavings of everything that can happen to jobs, on a real server, against the transition table.

Workers claim, begin, record, stall past their lease and write late; webhooks and people end jobs meanwhile. Whatever
the order: an open job stands in exactly one place, states follow the table, and only the current fence may write.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from outwait.config.settings import Settings
from outwait.worker.model.jobs import TRANSITIONS, JobError, JobState, Step
from outwait.worker.model.lanes import CALLBACK, Lane
from outwait.worker.model.outcomes import (
    NO_FENCE,
    Cancel,
    Choice,
    End,
    Fanout,
    Hold,
    Outcome,
    Release,
    Repoll,
    Resolve,
    Retry,
    Submitted,
    Uncertain,
    Wait,
    WebhookReceived,
    WebhookVerdict,
)
from outwait.worker.store import codec
from outwait.worker.store.codes import Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.fields import JobField, UseField
from outwait.worker.store.lanes import Held, LanePolicy, Lanes, NewJob
from outwait.worker.store.reads import Reads

SUBMIT, POLL, HELD = (Lane.parse(text) for text in ("submit:unless", "poll:unless", "held:unless"))
LANES = (SUBMIT, POLL, CALLBACK)
ENDS = {state for state in JobState if state.ended}
ERROR = JobError("x", "y").text()
SPEC = codec.blob(b'{"params":{},"targets":[],"metadata":{}}', 100)


class Life(RuleBasedStateMachine):
    """Several jobs, any number of workers, one store."""

    redis_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.connection = Connection(Settings(redis_url=self.redis_url, namespace=f"p-{uuid4().hex}", _env_file=None))
        self.lanes, self.reads = Lanes(self.connection), Reads(self.connection)
        self.states: dict[str, JobState] = {}
        self.webhooks: Counter[str] = Counter()
        self.repolls: Counter[str] = Counter()
        self.held: list[tuple[Lane, str, int]] = []  # lane, job, fence: whatever any worker believes it holds

    def teardown(self) -> None:
        self.do(self.connection.close())
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @rule()
    def enqueue(self) -> None:
        job_id = f"job{len(self.states)}"
        job = NewJob(id=job_id, provider="unless", operation="query", digest="d", spec=SPEC, tenant="a")
        self.do(self.lanes.enqueue([job]))
        self.states[job_id] = JobState.QUEUED

    @precondition(lambda self: self.states)
    @rule(lane=st.sampled_from(LANES), short=st.booleans())
    def claim(self, lane: Lane, short: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        policy = LanePolicy(batch=2, lease_ms=1 if short else 60_000, cap=10)
        for claim in self.do(self.lanes.claim(lane, policy)):
            self.held.append((lane, claim.work_id, claim.fence))
        if short:
            end = time.monotonic() + 0.002
            while time.monotonic() < end:
                pass

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        lane, job_id, fence = self.held[index]
        current = self.fence(job_id)
        policy = LanePolicy(batch=2, lease_ms=60_000, cap=10)
        _, (new,) = self.do(self.lanes.begin(lane, policy, [Held(job_id, fence)]))
        assert new in (0, fence + 1)
        if fence != current:
            assert new == 0, "a stale claim was begun"
        if new:
            self.held[index] = (lane, job_id, new)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        lane, job_id, fence = data.draw(st.sampled_from(self.held))
        policy = LanePolicy(batch=2, lease_ms=60_000, cap=10)
        (ours,) = self.do(self.lanes.renew(lane, policy, [Held(job_id, fence)], intent=lane == SUBMIT))
        assert not ours or fence == self.fence(job_id), "a stale step may send"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        lane, job_id, fence = data.draw(st.sampled_from(self.held))
        outcome = data.draw(st.sampled_from(outcomes(lane, job_id, fence)))
        current = self.fence(job_id)
        self.written(outcome, allowed=fence == current)

    @precondition(lambda self: self.states)
    @rule(data=st.data(), state=st.sampled_from([JobState.CANCELLED, JobState.SUCCEEDED]))
    def end_from_outside(self, data: st.DataObject, state: JobState) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.states)))
        self.written(End(work_id=job_id, fence=NO_FENCE, state=state), allowed=not self.states[job_id].ended)

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.states)))
        self.written(Cancel(work_id=job_id, error=ERROR), allowed=not self.states[job_id].ended)

    @precondition(lambda self: self.states)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(WebhookVerdict),
        external_id=st.sampled_from(["", "x-1", "x-2"]),
        trusted=st.booleans(),
        kept=st.booleans(),
    )
    def hear(
        self, data: st.DataObject, verdict: WebhookVerdict, external_id: str, *, trusted: bool, kept: bool
    ) -> None:
        """A webhook, which may tell the truth or not; one that was kept before is replayed."""
        job_id = data.draw(st.sampled_from(sorted(self.states)))
        before = self.do(self.reads.job(job_id))
        others = {job.external_id for job in self.do(self.reads.listed(sorted(self.states))) if job.id != job_id}
        asked = self.do(
            self.connection.redis.hmget(self.connection.keys("JOB", job_id), JobField.INTENT, JobField.CANCEL_REQUESTED)
        )
        end = End(work_id=job_id, fence=NO_FENCE, state=JobState.SUCCEEDED) if trusted else None
        record = None if kept else codec.blob(b"w", 100)
        outcome = WebhookReceived(
            work_id=job_id,
            record=record,
            summary="a word",
            verdict=verdict,
            external_id=external_id,
            min_interval_ms=0,
            nonce=uuid4().hex[:8],
            end_outcome=end,
        )
        self.do(self.lanes.record([outcome]))
        self.webhooks[job_id] += not kept
        job = self.do(self.reads.job(job_id))
        mine = external_id in ("", before.external_id) or not before.external_id
        mine = mine and (not external_id or external_id not in others)
        if before.state.ended:
            assert job.state is before.state
        elif trusted and mine:
            assert job.state is JobState.SUCCEEDED
        elif before.state is JobState.UNCERTAIN and external_id and mine and not any(asked):
            assert (job.state, job.external_id) == (JobState.WAITING, external_id)
        else:
            assert job.state is before.state or (job.state is JobState.WAITING and external_id)

    @precondition(lambda self: self.states)
    @rule(data=st.data(), choice=st.sampled_from(Choice))
    def resolve(self, data: st.DataObject, choice: Choice) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.states)))
        ending = End(work_id=job_id, fence=NO_FENCE, state=JobState.SUCCEEDED) if choice is Choice.AS_WEBHOOK else None
        outcome = Resolve(work_id=job_id, choice=choice, detail=ERROR, end_outcome=ending)
        self.written(outcome, allowed=self.states[job_id] is JobState.UNCERTAIN)

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def repoll(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.states)))
        job = self.do(self.reads.job(job_id))
        taken = job.submitted is not None or job.external_id is not None
        allowed = job.state in ENDS - {JobState.SUCCEEDED} and taken
        self.written(Repoll(work_id=job_id, min_interval_ms=0), allowed=allowed)
        if allowed:
            self.repolls[job_id] += 1
            assert self.do(self.reads.job(job_id)).state is JobState.WAITING

    @invariant()
    def every_job_stands_where_it_must(self) -> None:
        for job_id in self.states:
            job = self.do(self.reads.job(job_id))
            self.moved(job_id, job.state)
            places = self.do(self.places(job_id))
            assert len(places) == (0 if job.closed else 1), (job, places)
            assert self.do(self.indexes(job_id)) == [job.state]
            ends = [entry for entry in self.do(self.reads.timeline(job_id)) if entry.event in ENDS]
            assert len(ends) == job.state.ended + self.repolls[job_id], ends
            assert job.ledger.webhooks == self.webhooks[job_id]

    @invariant()
    def no_two_jobs_have_an_external_id_and_their_tenants_counts_are_exact(self) -> None:
        jobs = self.do(self.reads.listed(sorted(self.states)))
        ids = [job.external_id for job in jobs if job.external_id]
        assert len(ids) == len(set(ids))
        count = self.do(self.connection.redis.hget(self.connection.keys("USE", "a"), UseField.OPEN_JOBS))
        assert int(count or 0) == sum(not job.state.ended for job in jobs)

    def written(self, outcome: Outcome, *, allowed: bool) -> None:
        late = isinstance(outcome, Submitted) and self.undecided(outcome.work_id)
        ((code,), _) = self.do(self.lanes.record([outcome]))
        if not allowed and not late:
            assert code is Recorded.REFUSED, outcome

    def undecided(self, job_id: str) -> bool:
        """Whether a late answer to the submit still counts: nobody has decided, and no new submit is on its way."""
        job = self.do(self.reads.job(job_id))
        key = self.connection.keys("JOB", job_id)
        on_its_way = self.do(self.connection.redis.hexists(key, JobField.INTENT))
        return job.state in {JobState.QUEUED, JobState.UNCERTAIN} and not on_its_way

    def moved(self, job_id: str, state: JobState) -> None:
        before = self.states[job_id]
        assert state == before or state in TRANSITIONS[before], f"{before} -> {state}"
        self.states[job_id] = state

    def fence(self, job_id: str) -> int:
        return int(self.do(self.connection.redis.hget(self.connection.keys("JOB", job_id), JobField.FENCE)))

    async def places(self, job_id: str) -> list[str]:
        keys = {f"{kind}:{lane}": (kind, lane) for lane in (*LANES, HELD) for kind in ("DUE", "LEASED")}
        return await self.standing(job_id, keys)

    async def indexes(self, job_id: str) -> list[JobState]:
        return await self.standing(job_id, {state: ("INDEX", "unless", state) for state in JobState})

    async def standing(self, job_id: str, sets: dict[Any, tuple[str, ...]]) -> list[Any]:
        """Of these sorted sets, by name, those that hold the job: asked for in one round trip."""
        async with self.connection.redis.pipeline(transaction=False) as asked:
            for parts in sets.values():
                asked.zscore(self.connection.keys(*map(str, parts)), job_id)
            scores = await asked.execute()
        return [name for name, score in zip(sets, scores, strict=True) if score is not None]


def outcomes(lane: Lane, job_id: str, fence: int) -> list[Outcome]:
    """What a worker may have learnt in this lane."""
    end = End(work_id=job_id, fence=fence, state=JobState.FAILED, error=ERROR)
    match lane.step:
        case Step.SUBMIT:
            return [
                Submitted(work_id=job_id, fence=fence, external_id="x-1", countdown_ms=0, submits=1),
                Retry(work_id=job_id, fence=fence, countdown_ms=0, reason="again", attempt=1),
                Release(work_id=job_id, fence=fence),
                Uncertain(work_id=job_id, fence=fence, reason="lost", submits=1),
                Hold(work_id=job_id, fence=fence, reason="a person"),
                end,
            ]
        case Step.POLL:
            return [
                Wait(work_id=job_id, fence=fence, countdown_ms=0, status="PENDING", polls=1),
                Retry(work_id=job_id, fence=fence, countdown_ms=0, reason="again", attempt=1),
                Release(work_id=job_id, fence=fence),
                End(work_id=job_id, fence=fence, state=JobState.SUCCEEDED),
                end,
            ]
        case _:
            return [Fanout(work_id=job_id, fence=fence, targets=()), Release(work_id=job_id, fence=fence)]


def test_any_interleaving_keeps_every_promise_of_the_store(redis_url: str) -> None:
    machine = type("LifeHere", (Life,), {"redis_url": redis_url})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # leases end by the clock: a failure does not shrink
            suppress_health_check=list(HealthCheck),
        ),
    )
