"""What a step learnt: a closed set of types. The store's record script makes the changes that they ask for.

Made by keyword and sent to the script as maps, whose `verb` says which outcome it is; a field that has its default is
not sent. Names of countdowns, pauses and the like end in the unit: milliseconds. What a person decides has an
`act`, which is stored in the audit trail together with what it changes.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from outwait.worker.model.acts import NewAct
from outwait.worker.model.jobs import Claim, JobError, JobState

NO_FENCE = -1
"""Fence of an outcome that no lease stands behind."""


class _Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="verb"):
    """Any outcome."""


class WorkOutcome(_Outcome, frozen=True, kw_only=True):
    """About a job, or about a delivery: `work_id` is its id."""

    work_id: str


class StepOutcome(WorkOutcome, frozen=True, kw_only=True):
    """Learnt under a lease: refused if `fence` is not the present one."""

    fence: int


class ProviderOutcome(_Outcome, frozen=True, kw_only=True):
    """About a provider, for its governor."""

    provider: str


class Submitted(StepOutcome, tag="submitted", frozen=True, kw_only=True):
    """The provider took the job; it waits for its first poll.

    `not_before_ms` is the time for which not even a webhook makes that poll come.
    """

    external_id: str
    memo: str = ""
    countdown_ms: int
    submits: int
    fetches: int = 0
    not_before_ms: int = 0


class Wait(StepOutcome, tag="wait", frozen=True, kw_only=True):
    """Polled and not finished: no failure, no attempt spent.

    Args:
        countdown_ms: until the next poll.
        status: the provider's word for the job's state.
        memo: what the provider's code remembers; None: as before.
        polls: requests sent.
        fetches: requests sent.
        warning: for the timeline.
        webhook_countdown_ms: the countdown if a webhook said that the job ended; 0: the same.
        expiry_warning: a warning that is taken once a job: the life of the external id is nearly over.
        expires_ms: when the external id expires, as the provider said now; 0: it said nothing.
    """

    countdown_ms: int
    status: str
    memo: str | None = None
    polls: int
    fetches: int = 0
    warning: str = ""
    webhook_countdown_ms: int = 0
    expiry_warning: str = ""
    expires_ms: int = 0


class Retry(StepOutcome, tag="retry", frozen=True, kw_only=True):
    """The step failed in a way that is safe to repeat.

    Args:
        countdown_ms: until the next attempt.
        reason: what failed.
        attempt: 0 where the job was only made to wait, else 1.
        submits: requests sent.
        polls: requests sent.
        fetches: requests sent.
        unknown_polls: of a poll to which the provider said that it does not know the external id: how many said so.
    """

    countdown_ms: int
    reason: str
    attempt: int
    submits: int = 0
    polls: int = 0
    fetches: int = 0
    unknown_polls: int = 0


class Release(StepOutcome, tag="release", frozen=True, kw_only=True):
    """Given back untouched: due again now, no attempt spent."""


class Uncertain(StepOutcome, tag="uncertain", frozen=True, kw_only=True):
    """The request may have left, and its answer is lost; the provider's policy is applied next."""

    reason: str
    submits: int


class Begun(WorkOutcome, tag="begun", frozen=True, kw_only=True):
    """The job's submit has left, and another Redis is the master now: it may not know of that."""


class Hold(StepOutcome, tag="hold", frozen=True, kw_only=True):
    """Uncertain, and waiting for a person."""

    reason: str


class End(StepOutcome, tag="end", frozen=True, kw_only=True):
    """The job's outcome: `state` is one of the four ends. `error` is JSON; `result` too, made by `codec.blob`.

    `warning` is for the timeline: what is missing in the result, or was changed.
    `external_id` is given where the store does not have it yet.
    """

    state: JobState
    error: str = ""
    result: msgspec.Raw | None = None
    status: str = ""
    warning: str = ""
    external_id: str = ""
    submits: int = 0
    polls: int = 0
    fetches: int = 0


class Cancel(WorkOutcome, tag="cancel", frozen=True, kw_only=True):
    """Somebody gives the job up; `error` says who and why, as JSON.

    `remember_ms`: if no job has the id, one that comes within this time is cancelled from the start; 0: it is not.
    """

    error: str
    remember_ms: int = 0
    act: NewAct | None = None


class Choice(StrEnum):
    """What a person may decide about an uncertain job."""

    SUBMITTED_AS = "submitted-as"  # the provider has it, under this external id
    RESUBMIT = "resubmit"  # it has not, or a second one does no harm
    FAIL = "fail"
    AS_WEBHOOK = "as-webhook"  # it ended as its webhook says


class Resolve(WorkOutcome, tag="resolve", frozen=True, kw_only=True):
    """A person decides about an uncertain job.

    Args:
        choice: what the person decided.
        detail: with SUBMITTED_AS the external id, with FAIL the error as JSON.
        end_outcome: with AS_WEBHOOK, the end that the webhook says.
    """

    choice: Choice
    detail: str = ""
    end_outcome: End | None = None
    act: NewAct | None = None


class Repoll(WorkOutcome, tag="repoll", frozen=True, kw_only=True):
    """A person has a job polled again that ended without a result, though its provider took it.

    `min_interval_ms` is the time that its provider wants between two polls.
    """

    min_interval_ms: int
    act: NewAct | None = None


class WebhookVerdict(StrEnum):
    """What a webhook says of its job."""

    ENDED = "ended"
    UNFINISHED = "unfinished"
    UNCLEAR = "unclear"  # nothing that its provider documents: a poll is to see


class WebhookReceived(WorkOutcome, tag="webhook_received", frozen=True, kw_only=True):
    """A webhook came for a job: kept, and taken for a hint that a poll confirms, or for the job's end if it is trusted.

    Args:
        record: what is kept of it; None if it was kept before and is replayed.
        summary: what it says, for the timeline.
        verdict: what it says.
        external_id: what it names as the external id, or empty.
        min_interval_ms: between two polls of the job.
        nonce: name of this call; the same one counts once.
        end_outcome: the job's end, if the settings trust the webhook.
    """

    record: msgspec.Raw | None
    summary: str
    verdict: WebhookVerdict
    external_id: str = ""
    min_interval_ms: int
    nonce: str
    end_outcome: End | None = None


class Fanout(StepOutcome, tag="fanout", frozen=True, kw_only=True):
    """One delivery for each target. `provider_answer` says how the provider was notified of a cancel."""

    targets: tuple[str, ...]
    provider_answer: str = ""


class Delivered(StepOutcome, tag="delivered", frozen=True, kw_only=True):
    """The handler took the result. `detail` is what it answered, short."""

    detail: str = ""


class Redeliver(StepOutcome, tag="redeliver", frozen=True, kw_only=True):
    """The handler failed; another attempt follows. `error` is JSON."""

    countdown_ms: int
    error: str


class Dead(StepOutcome, tag="dead", frozen=True, kw_only=True):
    """The delivery is given up; a person may replay it. `error` is JSON."""

    error: str


class ReleaseDelivery(StepOutcome, tag="release_delivery", frozen=True, kw_only=True):
    """Given back untouched."""


class Replay(WorkOutcome, tag="replay", frozen=True, kw_only=True):
    """Repeat a settled delivery."""

    act: NewAct | None = None


class Pause(ProviderOutcome, tag="pause", frozen=True, kw_only=True):
    """Nothing is sent to the provider for this long."""

    pause_ms: int
    reason: str


class Suspend(ProviderOutcome, tag="suspend", frozen=True, kw_only=True):
    """A person stops everything of the provider, until somebody resumes it. `by` says who."""

    reason: str
    by: str = ""
    act: NewAct | None = None


class Resume(ProviderOutcome, tag="resume", frozen=True, kw_only=True):
    """A person lets the provider go on, whoever paused it: a person or its own answer."""

    act: NewAct | None = None


class Outage(ProviderOutcome, tag="outage", frozen=True, kw_only=True):
    """The provider could not be reached, or failed. `limit` outages in a row open its breaker.

    The breaker stays open for `wait_ms` the first time; that doubles up to `longest_ms`.
    """

    reason: str
    limit: int
    wait_ms: int
    longest_ms: int


class Spent(ProviderOutcome, tag="spent", frozen=True, kw_only=True):
    """A step of a provider with a limited rate is over: its requests count in the window from now on.

    Until then its claim takes a slot, however long it runs. `claim_fence` is the fence of that claim.
    """

    work_id: str
    claim_fence: int
    requests: int
    window_ms: int


class Orphaned(ProviderOutcome, tag="orphaned", frozen=True, kw_only=True):
    """An answer was paid for and no job is there for it: kept for a person. `record` is JSON (`store/orphans.py`)."""

    record: str


Outcome = (
    Submitted
    | Wait
    | Retry
    | Release
    | Uncertain
    | Begun
    | Hold
    | End
    | Cancel
    | Resolve
    | Repoll
    | WebhookReceived
    | Fanout
    | Delivered
    | Redeliver
    | Dead
    | ReleaseDelivery
    | Replay
    | Pause
    | Suspend
    | Resume
    | Outage
    | Spent
    | Orphaned
)


class Counts(NamedTuple):
    """Requests that a step really sent, for the job's ledger."""

    submits: int = 0
    polls: int = 0
    fetches: int = 0


NO_COUNTS = Counts()


def failed(claim: Claim, error: JobError, counts: Counts = NO_COUNTS, *, status: str = "") -> End:
    """The job ends as failed. `status` is the provider's word for it."""
    text = error.text()
    return End(
        work_id=claim.work_id, fence=claim.fence, state=JobState.FAILED, error=text, status=status, **counts._asdict()
    )


def expired(claim: Claim, message: str, counts: Counts = NO_COUNTS) -> End:
    """The job ends as expired."""
    error = JobError("expired", message).text()
    return End(work_id=claim.work_id, fence=claim.fence, state=JobState.EXPIRED, error=error, **counts._asdict())
