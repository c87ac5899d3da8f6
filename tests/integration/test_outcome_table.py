"""Every outcome in every state, recorded on a real server: what is written, what is refused, where the job is then.

Compared with `TRANSITIONS` in both directions: no outcome makes another change, and each change has an outcome.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest

from outwait.worker.model.jobs import TRANSITIONS, DeliveryState, JobError, JobState
from outwait.worker.model.lanes import CALLBACK, Lane
from outwait.worker.model.outcomes import (
    NO_FENCE,
    Begun,
    Cancel,
    Choice,
    Dead,
    Delivered,
    End,
    Fanout,
    Hold,
    Orphaned,
    Outage,
    Outcome,
    Pause,
    ProviderOutcome,
    Redeliver,
    Release,
    ReleaseDelivery,
    Replay,
    Repoll,
    Resolve,
    Resume,
    Retry,
    Spent,
    Submitted,
    Suspend,
    Uncertain,
    Wait,
    WebhookReceived,
    WebhookVerdict,
)
from outwait.worker.store import codec
from outwait.worker.store.codes import Recorded
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Held, LanePolicy, Lanes, NewJob
from outwait.worker.store.reads import Reads

SUBMIT, POLL, DELIVER = (Lane.parse(lane) for lane in ("submit:unless", "poll:unless", "deliver:crm"))
JOBS = LanePolicy(batch=10, lease_ms=60_000, cap=100)
SPEC = codec.blob(codec.encode({"params": {}}), 1000)
ERROR = JobError("x", "y").text()
RECORD = codec.blob(b"w", 1000)
ENDS = tuple(state for state in JobState if state.ended)


KEPT, REFUSED, CANCEL_PENDING = Recorded.WRITTEN, Recorded.REFUSED, Recorded.CANCEL_PENDING
"""What an outcome does beside changing the state: it is written and the state stays, or it is refused, or it waits."""

QUEUED, WAITING, UNCERTAIN = JobState.QUEUED, JobState.WAITING, JobState.UNCERTAIN
SUCCEEDED, FAILED, EXPIRED, CANCELLED = ENDS

Make = Callable[[int], Outcome]


class Row(NamedTuple):
    """An outcome by the fence of a lease, and what it does in each state: a new state, or see above."""

    name: str
    outcome: Make
    queued: JobState | Recorded
    waiting: JobState | Recorded
    uncertain: JobState | Recorded
    ended: JobState | Recorded
    succeeded: Recorded | None = None  # where that differs from the other ends

    def expected(self, state: JobState) -> tuple[Recorded, JobState]:
        """What became of the outcome, and the state of the job then."""
        does = self.ended if state.ended else {QUEUED: self.queued, WAITING: self.waiting}.get(state, self.uncertain)
        if state is SUCCEEDED and self.succeeded is not None:
            does = self.succeeded
        return (does, state) if isinstance(does, Recorded) else (Recorded.WRITTEN, does)


def end(state: JobState) -> Make:
    return lambda fence: End(work_id="j1", fence=fence, state=state, error="" if state is SUCCEEDED else ERROR)


def resolve(choice: Choice, detail: str = "", end_outcome: End | None = None) -> Make:
    return lambda _: Resolve(work_id="j1", choice=choice, detail=detail, end_outcome=end_outcome)


def webhook(verdict: WebhookVerdict, external_id: str = "", end_outcome: End | None = None) -> Make:
    return lambda _: WebhookReceived(
        work_id="j1",
        record=RECORD,
        summary="a webhook",
        verdict=verdict,
        external_id=external_id,
        min_interval_ms=0,
        nonce="n",
        end_outcome=end_outcome,
    )


TRUSTED = End(work_id="j1", fence=NO_FENCE, state=SUCCEEDED)

ROWS = [
    # outcome, and what it does to a job that is: queued (its submit on its way), waiting, uncertain, ended
    Row(
        "submitted",
        lambda fence: Submitted(work_id="j1", fence=fence, external_id="x-1", countdown_ms=0, submits=1),
        WAITING, KEPT, WAITING, REFUSED,
    ),
    Row(
        "wait",
        lambda fence: Wait(work_id="j1", fence=fence, countdown_ms=0, status="RUN", polls=1),
        KEPT, KEPT, KEPT, REFUSED,
    ),
    Row(
        "retry",
        lambda fence: Retry(work_id="j1", fence=fence, countdown_ms=0, reason="no", attempt=1),
        KEPT, KEPT, QUEUED, KEPT,
    ),
    Row("release", lambda fence: Release(work_id="j1", fence=fence), KEPT, KEPT, KEPT, KEPT),
    Row(
        "uncertain",
        lambda fence: Uncertain(work_id="j1", fence=fence, reason="lost", submits=1),
        UNCERTAIN, REFUSED, KEPT, REFUSED,
    ),
    Row("begun", lambda _: Begun(work_id="j1"), KEPT, KEPT, KEPT, KEPT),
    Row("hold", lambda fence: Hold(work_id="j1", fence=fence, reason="who knows"), REFUSED, REFUSED, KEPT, REFUSED),
    Row("end succeeded", end(SUCCEEDED), SUCCEEDED, SUCCEEDED, SUCCEEDED, REFUSED),
    Row("end failed", end(FAILED), FAILED, FAILED, FAILED, REFUSED),
    Row("end expired", end(EXPIRED), EXPIRED, EXPIRED, EXPIRED, REFUSED),
    Row("end cancelled", end(CANCELLED), CANCELLED, CANCELLED, CANCELLED, REFUSED),
    Row("cancel", lambda _: Cancel(work_id="j1", error=ERROR), CANCEL_PENDING, CANCELLED, CANCELLED, REFUSED),
    Row("resolve submitted-as", resolve(Choice.SUBMITTED_AS, "x-1"), REFUSED, REFUSED, WAITING, REFUSED),
    Row("resolve resubmit", resolve(Choice.RESUBMIT), REFUSED, REFUSED, QUEUED, REFUSED),
    Row("resolve fail", resolve(Choice.FAIL, ERROR), REFUSED, REFUSED, FAILED, REFUSED),
    Row("resolve as-webhook", resolve(Choice.AS_WEBHOOK, end_outcome=TRUSTED), REFUSED, REFUSED, SUCCEEDED, REFUSED),
    Row(
        "repoll",
        lambda _: Repoll(work_id="j1", min_interval_ms=0),
        REFUSED, REFUSED, REFUSED, WAITING, succeeded=REFUSED,
    ),
    Row("webhook ended", webhook(WebhookVerdict.ENDED), KEPT, KEPT, KEPT, KEPT),
    Row("webhook ended, id", webhook(WebhookVerdict.ENDED, "x-1"), KEPT, KEPT, WAITING, KEPT),
    Row("webhook unfinished", webhook(WebhookVerdict.UNFINISHED), KEPT, KEPT, KEPT, KEPT),
    Row("webhook unfinished, id", webhook(WebhookVerdict.UNFINISHED, "x-1"), KEPT, KEPT, WAITING, KEPT),
    Row("webhook unclear", webhook(WebhookVerdict.UNCLEAR), KEPT, KEPT, KEPT, KEPT),
    Row("webhook unclear, id", webhook(WebhookVerdict.UNCLEAR, "x-1"), KEPT, KEPT, WAITING, KEPT),
    Row(
        "webhook trusted", webhook(WebhookVerdict.ENDED, "x-1", TRUSTED), SUCCEEDED, SUCCEEDED, SUCCEEDED, KEPT
    ),
    Row(
        "webhook trusted, another id",
        webhook(WebhookVerdict.ENDED, "x-2", TRUSTED),
        SUCCEEDED, KEPT, SUCCEEDED, KEPT,
    ),
    Row("fanout", lambda fence: Fanout(work_id="j1", fence=fence, targets=("crm",)), KEPT, KEPT, KEPT, KEPT),
    Row("pause", lambda _: Pause(provider="unless", pause_ms=1000, reason="429"), KEPT, KEPT, KEPT, KEPT),
    Row("suspend", lambda _: Suspend(provider="unless", reason="us"), KEPT, KEPT, KEPT, KEPT),
    Row("resume", lambda _: Resume(provider="unless"), REFUSED, REFUSED, REFUSED, REFUSED),
    Row(
        "outage",
        lambda _: Outage(provider="unless", reason="503", limit=1, wait_ms=1000, longest_ms=1000),
        KEPT, KEPT, KEPT, KEPT,
    ),
    Row("orphaned", lambda _: Orphaned(provider="unless", record="{}"), KEPT, KEPT, KEPT, KEPT),
    Row(
        "spent",
        lambda fence: Spent(provider="unless", work_id="j1", claim_fence=fence, requests=1, window_ms=1000),
        KEPT, KEPT, KEPT, KEPT,
    ),
]  # fmt: skip

FENCED = [row for row in ROWS if hasattr(row.outcome(7), "fence")]


class DeliveryRow(NamedTuple):
    """An outcome of a delivery, and the state that it leads to from each state; None: refused."""

    name: str
    outcome: Make
    pending: DeliveryState | None
    delivered: DeliveryState | None
    dead: DeliveryState | None


PENDING, DELIVERED, DEAD = DeliveryState

DELIVERY_ROWS = [
    DeliveryRow("delivered", lambda fence: Delivered(work_id="j1#1", fence=fence), DELIVERED, None, None),
    DeliveryRow("dead", lambda fence: Dead(work_id="j1#1", fence=fence, error=ERROR), DEAD, None, None),
    DeliveryRow(
        "redeliver",
        lambda fence: Redeliver(work_id="j1#1", fence=fence, countdown_ms=0, error=ERROR),
        PENDING,
        None,
        None,
    ),
    DeliveryRow("release", lambda fence: ReleaseDelivery(work_id="j1#1", fence=fence), PENDING, None, None),
    DeliveryRow("replay", lambda _: Replay(work_id="j1#1"), None, PENDING, PENDING),
]


@pytest.fixture
def lanes(connection: Connection) -> Lanes:
    return Lanes(connection)


@pytest.fixture
def reads(connection: Connection) -> Reads:
    return Reads(connection)


async def write(lanes: Lanes, outcome: Outcome) -> Recorded:
    ((code,), _) = await lanes.record([outcome])
    return code


async def lease(lanes: Lanes, lane: Lane) -> int:
    """The fence of the only thing that is due in a lane, whose step runs now."""
    (claim,) = await lanes.claim(lane, JOBS)
    _, (fence,) = await lanes.begin(lane, JOBS, [Held(claim.work_id, claim.fence)])
    assert fence
    if lane is SUBMIT:
        await lanes.renew(lane, JOBS, [Held(claim.work_id, fence)], intent=True)
    return fence


async def reach(lanes: Lanes, state: JobState) -> int:
    """Bring a new job into a state; the fence of the lease that a worker then has."""
    await lanes.enqueue([NewJob(id="j1", provider="unless", operation="query", digest="d", spec=SPEC)])
    fence = await lease(lanes, SUBMIT)
    if state is QUEUED:
        return fence
    if state is UNCERTAIN:
        await write(lanes, Uncertain(work_id="j1", fence=fence, reason="lost", submits=1))
        (claim,) = await lanes.claim(SUBMIT, JOBS)  # a submit step decides about it before anything is begun
        return claim.fence
    await write(lanes, Submitted(work_id="j1", fence=fence, external_id="x-1", countdown_ms=0, submits=1))
    fence = await lease(lanes, POLL)
    if state is WAITING:
        return fence
    await write(lanes, end(state)(fence))
    return await lease(lanes, CALLBACK)


async def reach_delivery(lanes: Lanes, state: DeliveryState) -> int:
    """Bring a new delivery into a state; the fence of its last lease."""
    callback = await reach(lanes, SUCCEEDED)
    await write(lanes, Fanout(work_id="j1", fence=callback, targets=("crm",)))
    fence = await lease(lanes, DELIVER)
    if state is DELIVERED:
        await write(lanes, Delivered(work_id="j1#1", fence=fence))
    if state is DEAD:
        await write(lanes, Dead(work_id="j1#1", fence=fence, error=ERROR))
    return fence


def test_each_outcome_has_a_row() -> None:
    in_tables = {type(row.outcome(7)) for row in [*ROWS, *DELIVERY_ROWS]}
    assert in_tables == set(get_args(Outcome))


def test_the_table_makes_the_transitions_of_the_model_and_no_others() -> None:
    changes = {(state, row.expected(state)[1]) for row in ROWS for state in JobState}
    allowed = {(before, after) for before, afters in TRANSITIONS.items() for after in afters}
    assert {(before, after) for before, after in changes if before is not after} == allowed


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_each_outcome_in_each_state(lanes: Lanes, reads: Reads, row: Row, state: JobState) -> None:
    fence = await reach(lanes, state)
    assert (await reads.job("j1")).state is state
    code = await write(lanes, row.outcome(fence))
    assert (code, (await reads.job("j1")).state) == row.expected(state)


# The late answer of a submit is what an uncertain job waits for: test_store.py.
STALE = [(row, state) for row in FENCED for state in JobState if (row.name, state) != ("submitted", UNCERTAIN)]


@pytest.mark.parametrize(("row", "state"), STALE, ids=lambda one: getattr(one, "name", one))
async def test_a_stale_fence_writes_nothing(lanes: Lanes, reads: Reads, row: Row, state: JobState) -> None:
    fence = await reach(lanes, state)
    before = await reads.job("j1")
    assert await write(lanes, row.outcome(fence - 1)) is Recorded.REFUSED
    assert await reads.job("j1") == before


@pytest.mark.parametrize(
    "row", [row for row in ROWS if not isinstance(row.outcome(7), ProviderOutcome)], ids=lambda row: row.name
)
async def test_an_outcome_of_a_purged_job_is_unknown(lanes: Lanes, row: Row) -> None:
    assert await write(lanes, row.outcome(7)) is Recorded.UNKNOWN


async def test_a_job_whose_submit_has_not_begun_is_cancelled_at_once(lanes: Lanes, reads: Reads) -> None:
    await lanes.enqueue([NewJob(id="j1", provider="unless", operation="query", digest="d", spec=SPEC)])
    assert await write(lanes, Cancel(work_id="j1", error=ERROR)) is Recorded.WRITTEN
    assert (await reads.job("j1")).state is CANCELLED


@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("row", DELIVERY_ROWS, ids=lambda row: row.name)
async def test_each_outcome_of_a_delivery_in_each_state(
    lanes: Lanes, reads: Reads, row: DeliveryRow, state: DeliveryState
) -> None:
    fence = await reach_delivery(lanes, state)
    expected = {PENDING: row.pending, DELIVERED: row.delivered, DEAD: row.dead}[state]
    code = await write(lanes, row.outcome(fence))
    (delivery,) = await reads.deliveries("j1")
    assert (code, delivery.state) == ((Recorded.REFUSED, state) if expected is None else (Recorded.WRITTEN, expected))
    assert (await reads.job("j1")).state is SUCCEEDED, "no delivery changes its job's outcome"


@pytest.mark.parametrize("row", DELIVERY_ROWS, ids=lambda row: row.name)
async def test_an_outcome_of_a_purged_delivery_is_unknown(lanes: Lanes, row: DeliveryRow) -> None:
    assert await write(lanes, row.outcome(7)) is Recorded.UNKNOWN
