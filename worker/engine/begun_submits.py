"""Remembers the submits that have left this process lately, for a Redis that may have forgotten them.

Another Redis may become the master, or the same one start again, with data from before a submit was begun. The job
then looks as if nothing had been sent for it. Each worker says what it has sent, before anybody claims again.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from outwait.worker.model.jobs import Claim, JobState
from outwait.worker.model.outcomes import Begun, End, Outcome, Submitted, Uncertain

KEPT = 60.0
"""Seconds for which an answered submit is remembered: longer than a fail-over takes, whatever was not copied before."""


class _Answered(NamedTuple):
    """A submit that is over: its answer if it is known, what the store must be told, and when (monotonic seconds)."""

    claim: Claim
    outcome: Outcome
    at: float


class BegunSubmits:
    """The submits of one process, used on one event loop.

    Args:
        retention: seconds for which the store keeps closed jobs: one that is purged was not forgotten by mistake.
    """

    def __init__(self, retention: float) -> None:
        self._kept = min(KEPT, retention)
        self._leaving: dict[str, tuple[Claim, Begun]] = {}
        self._answered: deque[_Answered] = deque()

    def begin(self, claim: Claim) -> None:
        """The request of this job leaves when its intent is written."""
        self._leaving[claim.work_id] = claim, Begun(work_id=claim.work_id)

    def end(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        """What a step learnt. A submit that certainly cost nothing is forgotten: it may be sent again."""
        _, begun = self._leaving.pop(claim.work_id, (None, None))
        if begun is None:
            return
        self._forget()
        match outcomes[0]:
            case Submitted() as answer:
                self._answered.append(_Answered(claim, answer, time.monotonic()))
            case Uncertain() | End(state=JobState.SUCCEEDED):
                self._answered.append(_Answered(claim, begun, time.monotonic()))
            case _:
                pass

    def again(self) -> list[tuple[Outcome, Claim]]:
        """What the store must know of them, with the claim of each. A store that knows it already changes nothing."""
        self._forget()
        answered: list[tuple[Outcome, Claim]] = [(submit.outcome, submit.claim) for submit in self._answered]
        return answered + [(begun, claim) for claim, begun in self._leaving.values()]

    def _forget(self) -> None:
        before = time.monotonic() - self._kept
        while self._answered and self._answered[0].at < before:
            self._answered.popleft()
