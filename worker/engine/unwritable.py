"""What is recorded in place of an outcome that the store cannot take: nothing that was paid for is lost sight of. Pure.

Redis can never write it: its job ends visibly, with its external id. No job is there for it: it is an orphan.
"""

import msgspec

from outwait.worker.model.errors import StoreRefused
from outwait.worker.model.jobs import Claim, JobError, JobState
from outwait.worker.model.outcomes import (
    Begun,
    Cancel,
    Dead,
    Delivered,
    End,
    Fanout,
    Hold,
    Orphaned,
    Outage,
    Outcome,
    Pause,
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
)
from outwait.worker.net.redaction import redact
from outwait.worker.store.orphans import Orphan

CODE = "outcome_unwritable"
"""The error's code of a job or delivery that ends because what became of it cannot be stored."""

CAUSE_SHOWN = 300
"""Characters of Redis's error that are kept."""


def substitute(outcome: Outcome, claim: Claim | None, error: StoreRefused) -> Outcome | None:
    """The outcome that takes its place; None where nothing is lost if its lease ends: no answer is in it.

    Args:
        outcome: what Redis refuses for good.
        claim: that it came of.
        error: why it refuses.
    """
    cause = redact(str(error.__cause__ or error))[:CAUSE_SHOWN]
    why = JobError(CODE, f"the store can never keep what the provider or the handler answered: {cause}").text()
    match outcome:
        case Submitted() | Wait() | Retry() | End():
            return End(
                work_id=outcome.work_id,
                fence=outcome.fence,
                state=JobState.FAILED,
                error=why,
                external_id=external_id_of(outcome, claim),
                submits=0 if isinstance(outcome, Wait) else outcome.submits,
                polls=0 if isinstance(outcome, Submitted) else outcome.polls,
                fetches=outcome.fetches,
            )
        case Uncertain():
            end = End(work_id=outcome.work_id, fence=outcome.fence, state=JobState.FAILED, error=why)
            return msgspec.structs.replace(end, submits=outcome.submits)
        case Delivered() | Redeliver() | Dead():
            return Dead(work_id=outcome.work_id, fence=outcome.fence, error=why)
        case Release() | ReleaseDelivery() | Hold() | Fanout() | Cancel() | Resolve() | Replay() | WebhookReceived():
            return None
        case Begun() | Repoll() | Pause() | Suspend() | Resume() | Outage() | Spent() | Orphaned():
            return None


def orphaned(outcome: Outcome, claim: Claim | None, reason: str) -> Orphaned | None:
    """What is kept for a person of an outcome that no job has; None if nothing was paid for."""
    external_id = external_id_of(outcome, claim)
    if claim is None or not (external_id or isinstance(outcome, Uncertain | Begun)):
        return None
    orphan = Orphan(claim.work_id, claim.provider, claim.operation, external_id, kind_of(outcome), reason)
    return Orphaned(provider=claim.provider, record=msgspec.json.encode(orphan).decode())


def kind_of(outcome: Outcome) -> str:
    """The outcome's name in logs and records."""
    return type(outcome).__name__.lower()


def external_id_of(outcome: Outcome, claim: Claim | None) -> str:
    """The provider's id for the job that an outcome is about; empty if it is not known, or not the outcome's matter."""
    match outcome:
        case Submitted(external_id=external_id):
            return external_id
        case End(external_id=external_id) if external_id:
            return external_id
        case Wait() | Retry() | End():
            return claim.external_id if claim else ""
        case _:
            return ""
