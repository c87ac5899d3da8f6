"""What a step learnt: a closed set. Each is one line for the store's record script, which alone changes a state.

An outcome is encoded as `[verb, item, fence, …]` in the order of its fields. Countdowns and pauses are milliseconds.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from outwait.worker.model.jobs import Claim, JobError, JobState

NO_FENCE = -1
"""Fence of an outcome that no lease stands behind: a webhook, a person, a purge."""

NOTHING = msgspec.Raw(b"\xa0")
"""An empty msgpack string: no result."""


class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    item: str
    fence: int


class Submitted(_Outcome, tag="submitted", frozen=True, array_like=True):
    """The provider took the job; it waits for its first poll."""

    external_id: str
    memo: str
    countdown: int
    submits: int = 1
    fetches: int = 0


class Wait(_Outcome, tag="wait", frozen=True, array_like=True):
    """Polled and not finished: no failure, no attempt spent."""

    countdown: int
    status: str
    memo: str | None = None
    polls: int = 1
    fetches: int = 0
    warning: str = ""
    hurried: int = 0  # the countdown if a webhook said that the job ended; 0: the same
    expires: str = ""  # a warning that counts once: the life of the external id is nearly over


class Retry(_Outcome, tag="retry", frozen=True, array_like=True):
    """The step failed in a way that is safe to repeat. `attempt` is 0 where the job was only made to wait."""

    countdown: int
    reason: str
    attempt: int = 1
    submits: int = 0
    polls: int = 0
    fetches: int = 0


class Release(_Outcome, tag="release", frozen=True, array_like=True):
    """Given back untouched: due again now, no attempt spent. `intent` (if not empty) names the begin to take back."""

    intent: str = ""


class Uncertain(_Outcome, tag="uncertain", frozen=True, array_like=True):
    """The request left, perhaps, and its answer is lost; the provider's policy is applied next."""

    reason: str
    submits: int = 1


class Hold(_Outcome, tag="hold", frozen=True, array_like=True):
    """Uncertain, and waiting for a person."""

    reason: str


class End(_Outcome, tag="end", frozen=True, array_like=True):
    """The job's outcome: `state` is one of the four ends. `error` and `result` are JSON (`codec.blob`), or empty."""

    state: str
    error: str = ""
    result: msgspec.Raw = NOTHING
    status: str = ""
    submits: int = 0
    polls: int = 0
    fetches: int = 0


class Cancel(_Outcome, tag="cancel", frozen=True, array_like=True):
    """Somebody gives the job up; `error` says who and why, as JSON."""

    error: str


class Choice(StrEnum):
    """What a person may decide about an uncertain job."""

    SUBMITTED_AS = "submitted-as"  # the provider has it, under this external id
    RESUBMIT = "resubmit"  # it has not, or a second one does no harm
    FAIL = "fail"
    AS_WEBHOOK = "as-webhook"  # it ended as its webhook says


class Resolve(_Outcome, tag="resolve", frozen=True, array_like=True):
    """A person decides about an uncertain job. `detail` is the external id, or the error as JSON."""

    choice: Choice
    detail: str = ""
    ending: End | None = None  # with AS_WEBHOOK


class WebhookVerdict(StrEnum):
    """What a webhook says of its job."""

    ENDED = "ended"
    UNFINISHED = "unfinished"
    UNCLEAR = "unclear"  # nothing that its provider documents: a poll is to see


class WebhookReceived(_Outcome, tag="heard", frozen=True, array_like=True):
    """A webhook came for a job: kept, and taken for a hint that a poll confirms, or for the job's end if it is trusted.

    `record` is what is kept of it, empty if it was kept before and is replayed. `told` is for the timeline. `least` are
    the milliseconds that two polls of the job are apart. `nonce` makes the same call count once. `ending` is there if
    the settings trust the webhook.
    """

    record: msgspec.Raw
    told: str
    says: WebhookVerdict
    external_id: str
    least: int
    nonce: str
    ending: End | None = None


class Fanout(_Outcome, tag="fanout", frozen=True, array_like=True):
    """One delivery for each target. `told` is what the provider said to a cancel, if it was told."""

    targets: tuple[str, ...]
    told: str = ""


class Delivered(_Outcome, tag="delivered", frozen=True, array_like=True):
    """The handler took the result. `detail` is what it answered, short."""

    detail: str = ""


class Redeliver(_Outcome, tag="redeliver", frozen=True, array_like=True):
    """The handler failed; another attempt follows."""

    countdown: int
    error: str


class Dead(_Outcome, tag="dead", frozen=True, array_like=True):
    """The delivery is given up; a person may replay it."""

    error: str


class ReleaseDelivery(_Outcome, tag="release-delivery", frozen=True, array_like=True):
    """Given back untouched."""


class Replay(_Outcome, tag="replay", frozen=True, array_like=True):
    """Repeat a settled delivery."""


class Pause(_Outcome, tag="pause", frozen=True, array_like=True):
    """Nothing is sent to the rate group `item` for this long."""

    pause: int
    reason: str


class Suspend(_Outcome, tag="suspend", frozen=True, array_like=True):
    """A person stops everything of the rate group `item`, until somebody resumes it."""

    reason: str


class Resume(_Outcome, tag="resume", frozen=True, array_like=True):
    """A person lets the rate group `item` go on; `lanes` are its lanes."""

    lanes: tuple[str, ...]


class Outage(_Outcome, tag="outage", frozen=True, array_like=True):
    """The provider of rate group `item` could not be reached, or failed. `most` in a row open its breaker.

    `wait` is how long it stays open the first time; it doubles up to `longest`.
    """

    reason: str
    most: int
    wait: int
    longest: int


class Spent(_Outcome, tag="spent", frozen=True, array_like=True):
    """A step of the limited rate group `item` is over: its `requests` count in the window from now, none if none left.

    Until then its claim takes a place, however long it runs.
    """

    job_id: str
    claim_fence: int
    requests: int
    window: int


Outcome = (
    Submitted
    | Wait
    | Retry
    | Release
    | Uncertain
    | Hold
    | End
    | Cancel
    | Resolve
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
)


class Counts(NamedTuple):
    """Requests that a step really sent, for the job's ledger."""

    submits: int = 0
    polls: int = 0
    fetches: int = 0


NO_COUNTS = Counts()


def failed(claim: Claim, error: JobError, counts: Counts = NO_COUNTS, *, status: str = "") -> End:
    """The job ends as failed. `status` is the provider's word for it."""
    return End(claim.item, claim.fence, JobState.FAILED, error.text(), NOTHING, status, *counts)


def expired(claim: Claim, message: str, counts: Counts = NO_COUNTS) -> End:
    """The job ends as expired."""
    return End(claim.item, claim.fence, JobState.EXPIRED, JobError("expired", message).text(), NOTHING, "", *counts)
