"""The store's scripts on a real server: what stands where, who may write, what a reader sees."""

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from outwait.config.settings import Settings
from outwait.worker.model.jobs import JobError, JobState, Step
from outwait.worker.model.lanes import CALLBACK, Lane
from outwait.worker.model.outcomes import (
    NO_FENCE,
    Cancel,
    Choice,
    Dead,
    Delivered,
    End,
    Fanout,
    Hold,
    Outage,
    Outcome,
    Pause,
    Redeliver,
    Release,
    Replay,
    Resolve,
    Retry,
    Spent,
    Submitted,
    Uncertain,
    Wait,
)
from outwait.worker.store import codec
from outwait.worker.store.codes import EnqueueResult, Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.dead import DeadLetters
from outwait.worker.store.lanes import Held, LanePolicy, Lanes, NewJob
from outwait.worker.store.listing import Listing
from outwait.worker.store.reads import Reads

SUBMIT, POLL, HELD = (Lane.parse(text) for text in ("submit:unless", "poll:unless", "held:unless"))
CRM = Lane.of(Step.DELIVER, "crm")
POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100)
ONE = codec.blob(b"1", 1000)
DELIVERIES = LanePolicy(batch=10, lease_ms=60_000, cap=100)
SPEC = codec.blob(codec.encode({"params": {"query": "why?"}, "targets": ["crm"], "metadata": {"a": 1}}), 1000)


@pytest.fixture
def lanes(connection: Connection) -> Lanes:
    return Lanes(connection)


@pytest.fixture
def reads(connection: Connection) -> Reads:
    return Reads(connection)


def job(job_id: str, digest: str = "d1", **fields: object) -> NewJob:
    return NewJob(id=job_id, provider="unless", operation="query", digest=digest, spec=SPEC, **fields)


async def begun(lanes: Lanes, lane: Lane, *, intent: bool = False, policy: LanePolicy = POLICY) -> tuple[str, int]:
    (claim,) = await lanes.claim(lane, policy)
    _, (fence,) = await lanes.begin(lane, policy, [Held(claim.work_id, claim.fence)])
    assert fence > claim.fence
    if intent:
        assert await lanes.renew(lane, policy, [Held(claim.work_id, fence)], intent=True) == [True]
    return claim.work_id, fence


async def write(lanes: Lanes, outcome: Outcome) -> Recorded:
    (code,), _ = await lanes.record([outcome])
    return code


async def waiting(lanes: Lanes, job_id: str = "j1", countdown: int = 0) -> None:
    await lanes.enqueue([job(job_id)])
    item, fence = await begun(lanes, SUBMIT, intent=True)
    assert (
        await write(
            lanes,
            Submitted(work_id=item, fence=fence, external_id="x-1", memo="memo", countdown_ms=countdown, submits=1),
        )
        is Recorded.WRITTEN
    )


async def test_many_at_once_wait_for_a_connection(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1")])
    specs = await asyncio.gather(*(reads.specs(["j1"]) for _ in range(300)))
    assert all(specs)


async def test_a_job_lives_from_enqueue_to_closed(lanes: Lanes, reads: Reads) -> None:
    await waiting(lanes)
    item, fence = await begun(lanes, POLL)
    await write(lanes, Wait(work_id=item, fence=fence, countdown_ms=0, status="PENDING", polls=1))
    item, fence = await begun(lanes, POLL)
    await write(
        lanes,
        End(
            work_id=item,
            fence=fence,
            state=JobState.SUCCEEDED,
            result=codec.blob(b'{"answer":42}', 5),
            status="DONE",
            polls=1,
            fetches=2,
        ),
    )
    item, fence = await begun(lanes, CALLBACK)
    await write(lanes, Fanout(work_id=item, fence=fence, targets=("crm", "file:a.jsonl")))
    for target in ("crm", "file:a.jsonl"):
        item, fence = await begun(lanes, Lane.of(Step.DELIVER, target), policy=DELIVERIES)
        await write(lanes, Delivered(work_id=item, fence=fence))

    job = await reads.job("j1")
    assert (job.state, job.external_id, job.provider_status) == (JobState.SUCCEEDED, "x-1", "DONE")
    assert (job.ledger.submits, job.ledger.polls, job.ledger.fetches, job.ledger.deliveries) == (1, 2, 2, 2)
    assert job.closed is not None
    assert await reads.result("j1") == {"answer": 42}
    assert [entry.event for entry in await reads.timeline("j1")] == [
        "enqueued", "submitted", "status", "status", "succeeded", "callback", "delivered", "delivered",
        "closed",
    ]  # fmt: skip
    left = await reads.lanes([SUBMIT, POLL, CALLBACK, CRM])
    assert all(lane.waiting == lane.leased == 0 for lane in left)


async def test_when_an_external_id_expires_is_remembered(lanes: Lanes) -> None:
    await waiting(lanes)
    for said, known in ((7_000_000, 0), (0, 7_000_000), (8_000_000, 7_000_000), (0, 8_000_000)):
        (claim,) = await lanes.claim(POLL, POLICY)
        assert claim.expires_ms == known
        wait = Wait(work_id="j1", fence=claim.fence, countdown_ms=0, status="", polls=1, expires_ms=said)
        assert await write(lanes, wait) is Recorded.WRITTEN


async def test_a_long_error_is_cut_off_in_the_timeline_at_a_character_and_says_so(lanes: Lanes, reads: Reads) -> None:
    await waiting(lanes)
    item, fence = await begun(lanes, POLL)
    error = JobError("provider_failed", "zu groß: " + "ß" * 300, {"status": "FAILED"}).text()
    await write(lanes, End(work_id=item, fence=fence, state=JobState.FAILED, error=error))
    detail = (await reads.timeline("j1"))[-1].detail
    assert detail.startswith("provider_failed: zu groß: ßß")
    assert detail.endswith("ß…")
    assert (await reads.job("j1")).error == JobError("provider_failed", "zu groß: " + "ß" * 300, {"status": "FAILED"})


async def test_the_same_id_or_key_gives_the_same_job_and_another_request_conflicts(lanes: Lanes) -> None:
    assert await lanes.enqueue([job("j1", key="k")]) == [(EnqueueResult.CREATED, "j1")]
    assert await lanes.enqueue([job("j1", key="k")]) == [(EnqueueResult.SAME, "j1")]
    assert await lanes.enqueue([job("j2", key="k")]) == [(EnqueueResult.SAME, "j1")]
    assert await lanes.enqueue([job("j1", digest="d2")]) == [(EnqueueResult.CONFLICT, "j1")]
    assert await lanes.enqueue([job("j3", digest="d2", key="k")]) == [(EnqueueResult.CONFLICT, "j1")]


async def test_an_id_that_came_with_a_used_key_means_the_first_job(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1", key="k")])
    await lanes.enqueue([job("j2", key="k")])
    assert (await reads.job("j2")).id == "j1"
    assert await reads.aliases(["j1"]) == [{"j2"}]


async def test_a_claimed_job_is_nobody_elses(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1"), job("j2")])
    first, second = (
        await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=1)),
        await lanes.claim(SUBMIT, POLICY),
    )
    assert [claim.work_id for claim in first + second] == ["j1", "j2"]
    assert await lanes.claim(SUBMIT, POLICY) == []


async def test_a_claim_is_good_for_one_run(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1")])
    (claim,) = await lanes.claim(SUBMIT, POLICY)
    _, (first,) = await lanes.begin(SUBMIT, POLICY, [("j1", claim.fence)])
    _, (second,) = await lanes.begin(SUBMIT, POLICY, [("j1", claim.fence)])
    assert first > 0
    assert second == 0


async def test_an_outcome_counts_once_even_if_its_reply_was_lost(lanes: Lanes, reads: Reads) -> None:
    await waiting(lanes)
    item, fence = await begun(lanes, POLL)
    outcome = Wait(work_id=item, fence=fence, countdown_ms=60_000, status="PENDING", polls=1)
    assert await write(lanes, outcome) is Recorded.WRITTEN
    assert await write(lanes, outcome) is Recorded.REFUSED
    assert (await reads.job("j1")).ledger.polls == 1


async def test_a_stale_worker_cannot_write(lanes: Lanes, reads: Reads) -> None:
    await waiting(lanes)
    short = msgspec.structs.replace(POLICY, lease_ms=1)
    (stale,) = await lanes.claim(POLL, short)
    await asyncio.sleep(0.01)
    item, fence = await begun(lanes, POLL)
    end = End(work_id=item, fence=stale.fence, state=JobState.FAILED, error=JobError("x", "y").text())
    assert await write(lanes, end) is Recorded.REFUSED
    assert (
        await write(lanes, Wait(work_id=item, fence=fence, countdown_ms=0, status="PENDING", polls=1))
        is Recorded.WRITTEN
    )
    assert (await reads.job("j1")).state is JobState.WAITING


async def test_a_submit_whose_lease_ends_after_its_intent_is_uncertain(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1")])
    short = msgspec.structs.replace(POLICY, lease_ms=1)
    await begun(lanes, SUBMIT, intent=True, policy=short)
    await asyncio.sleep(0.01)
    (again,) = await lanes.claim(SUBMIT, POLICY)
    assert again.state == JobState.UNCERTAIN
    assert (await reads.job("j1")).state is JobState.UNCERTAIN


async def lost(lanes: Lanes) -> int:
    """A job whose submit was on its way when its lease ended, and which is held; the fence of the late answer."""
    await lanes.enqueue([job("j1")])
    short = LanePolicy(batch=10, lease_ms=1, cap=100)
    item, fence = await begun(lanes, SUBMIT, intent=True, policy=short)
    while not (doubted := await lanes.claim(SUBMIT, POLICY)):
        pass
    await write(lanes, Hold(work_id=item, fence=doubted[0].fence, reason="in doubt"))
    return fence


def late(fence: int) -> Submitted:
    return Submitted(work_id="j1", fence=fence, external_id="x-1", countdown_ms=0, submits=1)


async def test_an_answer_that_comes_after_the_lease_is_what_a_held_job_waits_for(lanes: Lanes, reads: Reads) -> None:
    fence = await lost(lanes)
    assert await write(lanes, late(fence)) is Recorded.WRITTEN
    stored = await reads.job("j1")
    assert (stored.state, stored.external_id, stored.ledger.submits) == (JobState.WAITING, "x-1", 1)
    assert (await reads.timeline("j1"))[-1].event == "adopted"
    (claim,) = await lanes.claim(POLL, POLICY)
    assert claim.external_id == "x-1"
    assert await write(lanes, late(fence)) is Recorded.REFUSED, "it counts once"


async def test_an_answer_that_comes_after_a_decision_to_submit_again_saves_the_second_payment(
    lanes: Lanes, reads: Reads
) -> None:
    fence = await lost(lanes)
    await write(lanes, Resolve(work_id="j1", choice=Choice.RESUBMIT))
    (again,) = await lanes.claim(SUBMIT, POLICY)
    assert await write(lanes, late(fence)) is Recorded.WRITTEN
    assert (await lanes.begin(SUBMIT, POLICY, [Held("j1", again.fence)]))[1] == [0]
    assert (await reads.job("j1")).state is JobState.WAITING


async def test_what_a_worker_learns_after_a_decision_is_noted_and_changes_nothing(lanes: Lanes, reads: Reads) -> None:
    fence = await lost(lanes)
    await write(lanes, Resolve(work_id="j1", choice=Choice.FAIL, detail=JobError("uncertain", "given up").text()))
    assert await write(lanes, late(fence)) is Recorded.REFUSED
    assert ((stored := await reads.job("j1")).state, stored.external_id) == (JobState.FAILED, None)
    entry = (await reads.timeline("j1"))[-1]
    assert (entry.event, entry.detail) == ("too-late", "submitted as x-1")


@pytest.mark.parametrize(("begins", "attempts"), [(True, 1), (False, 0)])
async def test_a_submit_whose_lease_ends_before_its_intent_is_simply_submitted(
    lanes: Lanes, reads: Reads, *, begins: bool, attempts: int
) -> None:
    """What only waited in a message for too long is no failed attempt."""
    await lanes.enqueue([job("j1")])
    short = msgspec.structs.replace(POLICY, lease_ms=1)
    (claim,) = await lanes.claim(SUBMIT, short)
    if begins:
        await lanes.begin(SUBMIT, short, [Held("j1", claim.fence)])
    await asyncio.sleep(0.01)
    (again,) = await lanes.claim(SUBMIT, POLICY)
    assert (again.state, again.attempts) == (JobState.QUEUED, attempts)
    assert (await reads.job("j1")).state is JobState.QUEUED
    assert [entry.event for entry in await reads.timeline("j1")] == ["enqueued", "lease-ended"]


async def test_a_held_job_stands_in_one_place_and_is_due_at_no_time(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1")])
    item, fence = await begun(lanes, SUBMIT, intent=True)
    await write(lanes, Uncertain(work_id=item, fence=fence, reason="connection reset", submits=1))
    (claim,) = await lanes.claim(SUBMIT, POLICY)
    await write(lanes, Hold(work_id="j1", fence=claim.fence, reason="a person decides"))
    assert await lanes.claim(SUBMIT, POLICY) == []
    stored = await reads.job("j1")
    assert (stored.state, stored.due) == (JobState.UNCERTAIN, None)
    assert (await reads.lanes([HELD]))[0].waiting == 1
    assert await write(lanes, Resolve(work_id="j1", choice=Choice.RESUBMIT)) is Recorded.WRITTEN
    assert len(await lanes.claim(SUBMIT, POLICY)) == 1


async def held(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1")])
    item, fence = await begun(lanes, SUBMIT, intent=True)
    await write(lanes, Uncertain(work_id=item, fence=fence, reason="connection reset", submits=1))
    (claim,) = await lanes.claim(SUBMIT, POLICY)
    await write(lanes, Hold(work_id="j1", fence=claim.fence, reason="a person decides"))


async def test_a_person_says_that_an_uncertain_job_was_submitted(lanes: Lanes, reads: Reads) -> None:
    await held(lanes)
    assert await write(lanes, Resolve(work_id="j1", choice=Choice.SUBMITTED_AS, detail="x-9")) is Recorded.WRITTEN
    (claim,) = await lanes.claim(POLL, POLICY)
    assert claim.external_id == "x-9"
    assert await write(lanes, Resolve(work_id="j1", choice=Choice.FAIL, detail="{}")) is Recorded.REFUSED
    assert "resolved" in [entry.event for entry in await reads.timeline("j1")]


async def test_a_person_gives_an_uncertain_job_up(lanes: Lanes, reads: Reads) -> None:
    await held(lanes)
    error = JobError("uncertain", "nobody knows").text()
    assert await write(lanes, Resolve(work_id="j1", choice=Choice.FAIL, detail=error)) is Recorded.WRITTEN
    job = await reads.job("j1")
    assert (job.state, job.error) == (JobState.FAILED, JobError("uncertain", "nobody knows"))


CANCEL = Cancel(work_id="j1", error=JobError("cancelled", "by hand").text())


async def test_a_queued_job_is_cancelled_and_never_submitted(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1")])
    assert await write(lanes, CANCEL) is Recorded.WRITTEN
    assert await lanes.claim(SUBMIT, POLICY) == []
    stored = await reads.job("j1")
    assert (stored.state, stored.error) == (JobState.CANCELLED, JobError("cancelled", "by hand"))
    assert await write(lanes, CANCEL) is Recorded.REFUSED


async def test_a_job_cancelled_while_its_submit_is_on_its_way_keeps_its_external_id(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1")])
    item, fence = await begun(lanes, SUBMIT, intent=True)
    assert await write(lanes, CANCEL) is Recorded.CANCEL_PENDING
    assert (await reads.job("j1")).state is JobState.QUEUED
    assert (
        await write(lanes, Submitted(work_id=item, fence=fence, external_id="x-1", countdown_ms=0, submits=1))
        is Recorded.WRITTEN
    )
    stored = await reads.job("j1")
    assert (stored.state, stored.external_id) == (JobState.CANCELLED, "x-1")
    assert await lanes.claim(POLL, POLICY) == []
    assert len(await lanes.claim(CALLBACK, POLICY)) == 1


async def test_a_waiting_job_is_cancelled_and_its_poll_in_flight_changes_nothing(lanes: Lanes, reads: Reads) -> None:
    await waiting(lanes)
    item, fence = await begun(lanes, POLL)
    assert await write(lanes, CANCEL) is Recorded.WRITTEN
    assert await write(lanes, End(work_id=item, fence=fence, state=JobState.SUCCEEDED, result=ONE)) is Recorded.REFUSED
    assert (
        await write(lanes, End(work_id="j1", fence=NO_FENCE, state=JobState.SUCCEEDED, result=ONE)) is Recorded.REFUSED
    ), "nor without a lease"
    assert (await reads.job("j1")).state is JobState.CANCELLED


async def test_only_the_first_end_counts(lanes: Lanes, reads: Reads) -> None:
    await waiting(lanes)
    item, fence = await begun(lanes, POLL)
    assert await write(lanes, End(work_id="j1", fence=NO_FENCE, state=JobState.CANCELLED)) is Recorded.WRITTEN
    assert await write(lanes, End(work_id=item, fence=fence, state=JobState.SUCCEEDED, result=ONE)) is Recorded.REFUSED
    assert (await reads.job("j1")).state is JobState.CANCELLED
    assert await reads.result("j1") is None


async def test_a_released_claim_is_due_at_once_and_spends_no_attempt(lanes: Lanes) -> None:
    await waiting(lanes)
    (claim,) = await lanes.claim(POLL, POLICY)
    await write(lanes, Release(work_id=claim.work_id, fence=claim.fence))
    (again,) = await lanes.claim(POLL, POLICY)
    assert again.attempts == 0


async def test_a_countdown_is_kept(lanes: Lanes) -> None:
    await waiting(lanes, countdown=60_000)
    assert await lanes.claim(POLL, POLICY) == []
    lane, wait = await lanes.due_lanes()
    assert lane == []
    assert wait is not None
    assert 50 < wait <= 60


async def test_the_cap_holds_back_what_is_over_it(lanes: Lanes) -> None:
    await lanes.enqueue([job(f"j{n}") for n in range(5)])
    capped = msgspec.structs.replace(POLICY, cap=3)
    assert len(await lanes.claim(SUBMIT, capped)) == 3
    assert await lanes.claim(SUBMIT, capped) == []


async def test_a_rate_limit_is_never_exceeded_in_any_window(lanes: Lanes) -> None:
    await lanes.enqueue([job(f"j{n}") for n in range(5)])
    limited = msgspec.structs.replace(POLICY, provider="unless", rate_limit=2, rate_window_ms=2000)
    claims = await lanes.claim(SUBMIT, limited)
    assert len(claims) == 2
    assert await lanes.claim(SUBMIT, limited) == []
    await lanes.record(
        [
            Spent(provider="unless", work_id=claim.work_id, claim_fence=claim.fence, requests=1, window_ms=2000)
            for claim in claims
        ]
    )
    assert await lanes.claim(SUBMIT, limited) == []
    _, wait = await lanes.due_lanes()
    assert wait is not None
    assert 0 < wait <= 2.001
    await asyncio.sleep(wait)
    assert len(await lanes.claim(SUBMIT, limited)) == 2


async def test_requests_in_flight_are_capped_over_all_lanes_of_the_group(lanes: Lanes) -> None:
    await waiting(lanes)
    await lanes.enqueue([job("j2"), job("j3")])
    group = msgspec.structs.replace(POLICY, provider="unless", in_flight=2)
    assert len(await lanes.claim(POLL, group)) == 1
    assert len(await lanes.claim(SUBMIT, group)) == 1


async def test_a_delivery_is_retried_dies_and_is_replayed(lanes: Lanes, reads: Reads, connection: Connection) -> None:
    await waiting(lanes)
    item, fence = await begun(lanes, POLL)
    await write(lanes, End(work_id=item, fence=fence, state=JobState.SUCCEEDED, result=ONE))
    item, fence = await begun(lanes, CALLBACK)
    await write(lanes, Fanout(work_id=item, fence=fence, targets=("crm",)))
    error = JobError("delivery_failed", "no route").text()
    item, fence = await begun(lanes, CRM, policy=DELIVERIES)
    await write(lanes, Redeliver(work_id=item, fence=fence, countdown_ms=0, error=error))
    (claim,) = await lanes.claim(CRM, DELIVERIES)
    assert claim.attempts == 1
    await write(lanes, Dead(work_id=claim.work_id, fence=claim.fence, error=error))
    (dead,) = [page async for page in DeadLetters(connection).pages()]
    assert [delivery.error.message for delivery in dead if delivery.error] == ["no route"]
    assert (await reads.job("j1")).closed is not None
    assert await write(lanes, Replay(work_id="j1#1")) is Recorded.WRITTEN
    assert (await reads.job("j1")).closed is None
    item, fence = await begun(lanes, CRM, policy=DELIVERIES)
    await write(lanes, Delivered(work_id=item, fence=fence))
    assert [page async for page in DeadLetters(connection).pages()] == []
    assert (await reads.job("j1")).ledger.submits == 1


async def test_a_job_without_targets_is_closed_at_once(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([job("j1", error=JobError("invalid_request", "no such operation").text())])
    item, fence = await begun(lanes, CALLBACK)
    await write(lanes, Fanout(work_id=item, fence=fence, targets=()))
    stored = await reads.job("j1")
    assert (stored.state, stored.closed is not None) == (JobState.FAILED, True)
    assert stored.error == JobError("invalid_request", "no such operation")


async def test_closed_jobs_are_purged_after_their_retention_and_leave_nothing(settings: Settings) -> None:
    kept = settings.model_copy(update={"store": settings.store.model_copy(update={"retention": 0.001})})
    connection = Connection(kept)
    lanes = Lanes(connection)
    await lanes.enqueue([job("j1", key="k", tenant="t"), job("j2", key="k", tenant="t")])
    await lanes.record([End(work_id="j1", fence=NO_FENCE, state=JobState.CANCELLED)])
    item, fence = await begun(lanes, CALLBACK)
    await write(lanes, Fanout(work_id=item, fence=fence, targets=("crm",)))
    item, fence = await begun(lanes, CRM, policy=DELIVERIES)
    await write(lanes, Dead(work_id=item, fence=fence, error=JobError("x", "y").text()))
    await asyncio.sleep(0.01)
    assert await lanes.purge() == 1
    left = [key async for key in connection.redis.scan_iter(match=f"{connection.keys.root}*")]
    of_lane = {connection.keys(name, str(SUBMIT)).encode() for name in ("LINES", "TURNS")}
    empty_at_the_next_look = {connection.keys("LANES").encode(), *of_lane}
    counts = {key for key in left if key.startswith(connection.keys("STAT").encode()[:-1])}
    assert set(left) - empty_at_the_next_look - counts == set()
    await connection.close()


async def test_listing_pages_through_states_and_providers_newest_first(
    lanes: Lanes, reads: Reads, connection: Connection
) -> None:
    for n in range(7):
        await lanes.enqueue([job(f"j{n}")])
    await lanes.record([End(work_id="j3", fence=NO_FENCE, state=JobState.CANCELLED)])
    listing = Listing(connection)
    seen, cursor = [], None
    while True:
        page = await listing.page(3, cursor)
        seen += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == [f"j{n}" for n in range(7)]
    assert [job.id for job in (await listing.page(state=JobState.CANCELLED)).jobs] == ["j3"]
    assert (await listing.page(provider="elevateai")).jobs == []
    assert (await reads.counts())["unless"]["cancelled"] == 1


GROUP = msgspec.structs.replace(POLICY, provider="unless")
OUTAGE = Outage(provider="unless", reason="503", limit=3, wait_ms=1500, longest_ms=2500)


async def test_outages_in_a_row_open_the_breaker_and_a_single_probe_closes_it(lanes: Lanes) -> None:
    await lanes.enqueue([job(f"j{n}") for n in range(4)])
    await lanes.record([OUTAGE, OUTAGE])
    first = await lanes.claim(SUBMIT, msgspec.structs.replace(GROUP, batch=1))
    assert len(first) == 1, "two outages are not three"
    await lanes.record([OUTAGE])
    assert await lanes.claim(SUBMIT, GROUP) == []
    await asyncio.sleep(1.6)
    probe = await lanes.claim(SUBMIT, GROUP)
    assert len(probe) == 1
    assert await lanes.claim(SUBMIT, GROUP) == [], "one probe at a time"
    await lanes.record(
        [Submitted(work_id=probe[0].work_id, fence=probe[0].fence, external_id="x", countdown_ms=60_000, submits=1)]
    )
    assert len(await lanes.claim(SUBMIT, GROUP)) == 2


async def test_a_failed_probe_keeps_the_breaker_open_longer(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1")])
    await lanes.record([OUTAGE, OUTAGE, OUTAGE])
    await asyncio.sleep(1.6)
    (probe,) = await lanes.claim(SUBMIT, GROUP)
    await lanes.record(
        [Retry(work_id=probe.work_id, fence=probe.fence, countdown_ms=0, reason="503", attempt=1), OUTAGE]
    )
    await asyncio.sleep(1.6)
    assert await lanes.claim(SUBMIT, GROUP) == []
    await asyncio.sleep(1)
    assert len(await lanes.claim(SUBMIT, GROUP)) == 1


async def test_a_pause_silences_every_lane_of_its_group_and_no_other(lanes: Lanes) -> None:
    await waiting(lanes)
    await lanes.enqueue([job("j2")])
    await lanes.record(
        [Pause(provider="unless", pause_ms=1500, reason="429"), Pause(provider="unless", pause_ms=10, reason="429")]
    )
    assert await lanes.claim(SUBMIT, GROUP) == []
    assert await lanes.claim(POLL, GROUP) == []
    assert len(await lanes.claim(POLL, msgspec.structs.replace(GROUP, provider="other"))) == 1
    await asyncio.sleep(1.6)
    assert len(await lanes.claim(SUBMIT, GROUP)) == 1


async def test_jobs_in_flight_at_the_provider_are_capped(lanes: Lanes) -> None:
    await waiting(lanes)
    await lanes.enqueue([job("j2"), job("j3")])
    assert len(await lanes.claim(SUBMIT, msgspec.structs.replace(GROUP, jobs_in_flight=2))) == 1
    assert await lanes.claim(SUBMIT, msgspec.structs.replace(GROUP, jobs_in_flight=2)) == []


async def test_an_intent_is_written_only_under_the_present_fence_and_into_no_silence(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1")])
    item, fence = await begun(lanes, SUBMIT)
    assert await lanes.renew(SUBMIT, GROUP, [Held(item, fence - 1), Held("gone", 1)], intent=True) == [False, False]
    await lanes.record([Pause(provider="unless", pause_ms=60_000, reason="429")])
    assert await lanes.renew(SUBMIT, GROUP, [Held(item, fence)], intent=True) == [False]
    assert await lanes.renew(SUBMIT, GROUP, [Held(item, fence)]) == [True], "what runs goes on"
    assert await write(lanes, Cancel(work_id=item, error="{}")) is Recorded.WRITTEN, "nothing left, so nothing is asked"


SHORT_LEASE = 3000
"""Milliseconds: a lease that a test outlives, and which a busy machine still renews in time."""


async def longer_than_a_lease() -> AsyncIterator[None]:
    """Often in a lease, until the first one would have ended."""
    end = time.monotonic() + 1.2 * SHORT_LEASE / 1000
    while time.monotonic() < end:
        await asyncio.sleep(SHORT_LEASE / 10_000)
        yield


async def test_a_renewed_step_keeps_its_place_in_the_rate(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1"), job("j2")])
    short = msgspec.structs.replace(GROUP, rate_limit=1, rate_window_ms=300, lease_ms=SHORT_LEASE)
    item, fence = await begun(lanes, SUBMIT, policy=short)
    async for _ in longer_than_a_lease():
        assert await lanes.renew(SUBMIT, short, [Held(item, fence)]) == [True]
        assert await lanes.claim(SUBMIT, short) == [], "its request runs longer than a lease and a window"
    over = Spent(provider="unless", work_id=item, claim_fence=fence - 1, requests=1, window_ms=300)
    await lanes.record([Submitted(work_id=item, fence=fence, external_id="x", countdown_ms=60_000, submits=1), over])
    assert await lanes.claim(SUBMIT, short) == []


async def test_a_renewed_probe_stays_the_only_one(lanes: Lanes) -> None:
    await lanes.enqueue([job("j1"), job("j2")])
    short = msgspec.structs.replace(GROUP, lease_ms=SHORT_LEASE)
    await lanes.record([Outage(provider="unless", reason="503", limit=1, wait_ms=1, longest_ms=1)])
    await asyncio.sleep(0.01)
    item, fence = await begun(lanes, SUBMIT, policy=short)
    async for _ in longer_than_a_lease():
        await lanes.renew(SUBMIT, short, [Held(item, fence)])
        assert await lanes.claim(SUBMIT, short) == []


async def test_a_probe_that_sends_nothing_gives_its_place_to_the_next(lanes: Lanes) -> None:
    """Protected by worker/store/lua/record/jobs.lua `leave`: a job whose parameters are invalid is not sent."""
    await lanes.enqueue([job("j1"), job("j2")])
    await lanes.record([Outage(provider="unless", reason="500", limit=1, wait_ms=1, longest_ms=1)])
    await asyncio.sleep(0.01)
    (probe,) = await lanes.claim(SUBMIT, GROUP)
    assert (probe.work_id, await lanes.claim(SUBMIT, GROUP)) == ("j1", [])
    error = JobError("invalid_request", "no such language").text()
    await lanes.record([End(work_id="j1", fence=probe.fence, state=JobState.FAILED, error=error)])
    (following,) = await lanes.claim(SUBMIT, GROUP)
    assert following.work_id == "j2"
    assert await lanes.claim(SUBMIT, GROUP) == [], "one probe at a time"
    outage = Outage(provider="unless", reason="500", limit=1, wait_ms=60_000, longest_ms=60_000)
    again = Retry(work_id=following.work_id, fence=following.fence, countdown_ms=0, reason="503", attempt=1)
    await lanes.record([again, outage])
    assert await lanes.claim(SUBMIT, GROUP) == [], "the breaker opened again"


async def test_other_work_of_a_probed_provider_holds_up_no_probe(lanes: Lanes) -> None:
    """Protected by worker/store/lua/prelude.lua `lengthen`: a lost probe is repeated while an upload goes on."""
    await lanes.enqueue([job("j1")])
    item, fence = await begun(lanes, SUBMIT, policy=GROUP)
    await lanes.enqueue([job("j2")])
    await lanes.record([Outage(provider="unless", reason="503", limit=1, wait_ms=1, longest_ms=1)])
    await asyncio.sleep(0.01)
    (probe,) = await lanes.claim(SUBMIT, msgspec.structs.replace(GROUP, lease_ms=1))
    assert await lanes.renew(SUBMIT, GROUP, [Held(item, fence)]) == [True]
    await asyncio.sleep(0.01)
    assert [claim.work_id for claim in await lanes.claim(SUBMIT, GROUP)] == [probe.work_id]


def of(tenant: str, number: int, priority: int = 5) -> NewJob:
    return job(f"{tenant}{number}", tenant=tenant, priority=priority)


async def test_a_tenants_backlog_does_not_hold_up_another_tenants_job(lanes: Lanes) -> None:
    await lanes.enqueue([of("big", n) for n in range(50)])
    first = [claim.work_id for claim in await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=3))]
    await lanes.enqueue([of("small", 1)])
    second = [claim.work_id for claim in await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=3))]
    assert first == ["big0", "big1", "big2"]
    assert "small1" in second


async def test_tenants_take_turns(lanes: Lanes) -> None:
    await lanes.enqueue([of("a", n) for n in range(6)] + [of("b", n) for n in range(6)])
    claims = await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=6))
    assert sorted(claim.work_id[0] for claim in claims) == ["a", "a", "a", "b", "b", "b"]


async def test_a_more_urgent_job_goes_first(lanes: Lanes) -> None:
    await lanes.enqueue([of("a", n) for n in range(6)] + [of("a", 9, priority=9)])
    (claim,) = await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=1))
    assert claim.work_id == "a9"


async def test_a_retry_whose_countdown_ended_is_not_held_up_by_a_backlog(lanes: Lanes) -> None:
    await lanes.enqueue([job("r")])
    item, fence = await begun(lanes, SUBMIT, intent=True)
    await lanes.enqueue([of("big", n) for n in range(50)])
    await write(lanes, Retry(work_id=item, fence=fence, countdown_ms=0, reason="not sent", attempt=1))
    assert "r" in [claim.work_id for claim in await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=4))]


async def test_submits_and_polls_share_a_rate_by_turns(lanes: Lanes) -> None:
    await lanes.enqueue([job(f"w{n}") for n in range(6)])
    claims = await lanes.claim(SUBMIT, POLICY)
    await lanes.record(
        [
            Submitted(work_id=claim.work_id, fence=claim.fence, external_id="x", countdown_ms=0, submits=1)
            for claim in claims
        ]
    )
    await lanes.enqueue([job(f"q{n}") for n in range(6)])
    shared = msgspec.structs.replace(GROUP, rate_limit=4, rate_window_ms=10_000)
    went = {SUBMIT: 0, POLL: 0}
    for _ in range(20):
        for lane in (SUBMIT, POLL):
            went[lane] += len(await lanes.claim(lane, shared))
    assert sum(went.values()) == 4
    assert min(went.values()) >= 1


async def test_a_lane_that_cannot_take_its_turn_holds_up_no_other(lanes: Lanes) -> None:
    await lanes.enqueue([job(f"w{n}") for n in range(2)])
    (claim,) = await lanes.claim(SUBMIT, msgspec.structs.replace(POLICY, batch=1))
    await lanes.record(
        [Submitted(work_id=claim.work_id, fence=claim.fence, external_id="x", countdown_ms=0, submits=1)]
    )
    shared = msgspec.structs.replace(GROUP, rate_limit=2, rate_window_ms=10_000, jobs_in_flight=1)
    polls = 0
    for _ in range(20):
        assert await lanes.claim(SUBMIT, shared) == []
        for claim in await lanes.claim(POLL, msgspec.structs.replace(shared, jobs_in_flight=0)):
            polls += 1
            await lanes.record(
                [Wait(work_id=claim.work_id, fence=claim.fence, countdown_ms=0, status="PENDING", polls=1)]
            )
    assert polls == 2


async def test_a_request_takes_its_place_in_the_rate_until_it_is_over_however_long_it_runs(lanes: Lanes) -> None:
    await lanes.enqueue([job(f"j{n}") for n in range(3)])
    limited = msgspec.structs.replace(GROUP, rate_limit=1, rate_window_ms=1000)
    (claim,) = await lanes.claim(SUBMIT, limited)
    _, (fence,) = await lanes.begin(SUBMIT, limited, [Held(claim.work_id, claim.fence)])
    await lanes.renew(SUBMIT, limited, [Held(claim.work_id, fence)], intent=True)
    await asyncio.sleep(1.1)
    assert await lanes.claim(SUBMIT, limited) == []
    over = Spent(provider="unless", work_id=claim.work_id, claim_fence=claim.fence, requests=1, window_ms=1000)
    await lanes.record(
        [Submitted(work_id=claim.work_id, fence=fence, external_id="x", countdown_ms=60_000, submits=1), over]
    )
    assert await lanes.claim(SUBMIT, limited) == []
    _, wait = await lanes.due_lanes()
    assert wait is not None
    assert wait <= 1.001
    await asyncio.sleep(wait)
    (claim,) = await lanes.claim(SUBMIT, limited)
    await lanes.record([Release(work_id=claim.work_id, fence=claim.fence)])
    assert len(await lanes.claim(SUBMIT, limited)) == 1, "what was given back has left nothing"


async def test_a_timeline_is_read_though_a_letter_was_cut_in_two(
    lanes: Lanes, connection: Connection, reads: Reads
) -> None:
    await lanes.enqueue([job("j")])
    (claim,) = await lanes.claim(SUBMIT, POLICY)
    await lanes.record(
        [Retry(work_id="j", fence=claim.fence, countdown_ms=0, reason="x" + "\N{EURO SIGN}" * 200, attempt=1)]
    )
    *_, entry = await reads.timeline("j")
    assert entry.detail.startswith("x\N{EURO SIGN}")


async def test_jobs_of_one_millisecond_are_listed_once_each_over_short_cursors(
    lanes: Lanes, connection: Connection
) -> None:
    await lanes.enqueue([job(f"j{n:03}") for n in range(150)])
    listing, seen, cursor = Listing(connection), [], None
    while True:
        page = await listing.page(20, cursor)
        seen += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
        assert len(cursor) < 150
    assert seen == sorted((f"j{n:03}" for n in range(150)), reverse=True)


async def test_a_tenants_jobs_are_listed_by_themselves(lanes: Lanes, connection: Connection) -> None:
    await lanes.enqueue([job(f"a{n}", tenant="acme") for n in range(30)] + [job(f"b{n}", tenant="b") for n in range(5)])
    await lanes.record([End(work_id=f"a{n}", fence=NO_FENCE, state=JobState.CANCELLED) for n in (3, 4)])
    listing = Listing(connection)
    assert len((await listing.page(100, tenant="acme")).jobs) == 30
    assert {job.tenant for job in (await listing.page(100, tenant="b")).jobs} == {"b"}
    few = await listing.page(2, tenant="acme", state=JobState.CANCELLED)
    assert {job.id for job in few.jobs} == {"a3", "a4"}
    assert (await listing.page(100, tenant="nobody")).jobs == []


async def test_each_tenant_has_idempotency_keys_of_its_own(lanes: Lanes, reads: Reads) -> None:
    jobs = [job("a", key="k", tenant="acme"), job("b", key="k", tenant="b"), job("c", key="k"), job("d", key="k")]
    assert [answer for answer, _ in await lanes.enqueue(jobs)] == [EnqueueResult.CREATED] * 3 + [EnqueueResult.SAME]
    assert [await reads.of_key("k", tenant) for tenant in ("acme", "b", None)] == ["a", "b", "c"]


async def test_a_tenants_key_of_the_release_before_still_leads_to_its_job(lanes: Lanes, connection: Connection) -> None:
    await lanes.enqueue([job("a", tenant="acme")])
    await connection.redis.set(connection.keys("IDEMPOTENCY", "k"), "a")
    assert await lanes.enqueue([job("again", key="k", tenant="acme")]) == [(EnqueueResult.SAME, "a")]
    assert await lanes.enqueue([job("b", key="k", tenant="b")]) == [(EnqueueResult.CREATED, "b")]
