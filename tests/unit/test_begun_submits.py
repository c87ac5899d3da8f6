"""What a worker still says of its submits when another Redis is the master."""

import pytest

from outwait.worker.engine.begun_submits import BegunSubmits
from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.outcomes import Begun, End, Outcome, Release, Retry, Submitted, Uncertain

CLAIM = Claim(work_id="j1", fence=2)
BEGUN = Begun(work_id=CLAIM.work_id)
SUBMITTED = Submitted(work_id=CLAIM.work_id, fence=2, external_id="x", countdown_ms=0, submits=1)


def end(state: JobState) -> End:
    return End(work_id=CLAIM.work_id, fence=2, state=state)


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (None, BEGUN),
        (SUBMITTED, SUBMITTED),
        (Uncertain(work_id=CLAIM.work_id, fence=2, reason="lost", submits=1), BEGUN),
        (end(JobState.SUCCEEDED), BEGUN),
        (end(JobState.FAILED), None),
        (Release(work_id=CLAIM.work_id, fence=2), None),
        (Retry(work_id=CLAIM.work_id, fence=2, countdown_ms=1, reason="429", attempt=1), None),
    ],
)
def test_what_may_have_cost_something_is_said_again(outcome: Outcome | None, again: Outcome | None) -> None:
    submits = BegunSubmits(60)
    submits.begin(CLAIM)
    if outcome:
        submits.end(CLAIM, [outcome])
    assert submits.again() == ([(again, CLAIM)] if again else [])


def test_a_later_poll_of_the_job_changes_nothing() -> None:
    submits = BegunSubmits(60)
    submits.begin(CLAIM)
    submits.end(CLAIM, [SUBMITTED])
    submits.end(CLAIM, [end(JobState.SUCCEEDED)])
    assert submits.again() == [(SUBMITTED, CLAIM)]


def test_what_the_store_may_have_purged_is_not_said() -> None:
    submits = BegunSubmits(0)
    submits.begin(CLAIM)
    submits.end(CLAIM, [SUBMITTED])
    assert submits.again() == []
