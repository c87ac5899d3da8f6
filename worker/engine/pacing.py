"""How long until the next try. Pure; all times in seconds.

`jitter` is a random number from 0 to 1 that the caller draws: with the same one the same countdown comes out.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from outwait.config.groups import StepSettings
from outwait.worker.providers.contract import Operation

JITTER = 0.1
"""Share by which a poll's countdown may be longer, so that jobs enqueued together do not stay together."""

LONGEST = 3600.0
"""Longest countdown before a poll, whatever was learnt, and longest wait that a provider can ask for."""

ENOUGH = 20
"""Durations of jobs from which something is learnt."""

RARE = 0.02
"""Share of the open jobs that may end before the next poll: until then a poll would find next to nothing."""

LIKELY = 0.2
"""Chance at which a poll is worth more than what waiting longer would save (benchmarks/polling.py)."""

STRETCH = 2.0
"""Intervals that a poll is put off for that chance."""

AGEING = 0.5
"""Share of the time since the slowest known duration that a job waits for its next poll."""

AGED = 10.0
"""Intervals that such a wait is at most."""

NEAR_EXPIRY = 0.1
"""Share of the life of an external id that is left when its end is near."""


def backoff(step: StepSettings, attempts: int, retry_after: float | None = None, *, jitter: float) -> float:
    """Countdown before the next attempt: exponential, half of it random, capped; what the provider asked for wins."""
    return _exponential(step.backoff, step.backoff_max, attempts, retry_after, jitter)


def endless_backoff(step: StepSettings, attempts: int, retry_after: float | None = None, *, jitter: float) -> float:
    """As `backoff`, for what is never given up: after `step.attempts` the cap doubles too, up to LONGEST."""
    doublings = min(max(attempts + 1 - step.attempts, 0), 32)
    cap = min(step.backoff_max * 2.0**doublings, max(step.backoff_max, LONGEST))
    return _exponential(step.backoff, cap, attempts, retry_after, jitter)


def _exponential(first: float, cap: float, attempts: int, retry_after: float | None, jitter: float) -> float:
    ceiling: float = min(first * 2.0 ** min(attempts, 32), cap)
    countdown = ceiling * (1.0 + jitter) / 2.0
    return countdown if retry_after is None else max(countdown, min(retry_after, LONGEST))


def scheduled(schedule: Sequence[float], attempts: int, retry_after: float | None = None, *, jitter: float) -> float:
    """Countdown before the next webhook: as the schedule says, or what its receiver asked for; a little of it random.

    Args:
        schedule: one countdown before each further attempt.
        attempts: failed before this one; fewer than the schedule is long.
        retry_after: what the receiver asked for; no longer than the longest countdown of the schedule, or LONGEST.
        jitter: see above.
    """
    asked = min(retry_after or 0.0, max(*schedule, LONGEST))
    return max(schedule[attempts], asked) * (1.0 + JITTER * jitter)


def poll_countdown(
    interval: float, asked: float | None = None, age: float = 0.0, durations: Sequence[float] = (), *, jitter: float
) -> float:
    """Countdown before the next poll.

    Args:
        interval: it is never shorter than this.
        asked: nor than this, which the provider asked for.
        age: of the job, since its submit.
        durations: how long other jobs took, sorted; empty: the interval alone counts.
        jitter: see above.
    """
    minimum = max(interval, min(asked or 0.0, LONGEST))
    worth = min(_worthwhile(interval, age, durations), LONGEST)
    return max(minimum, worth) + minimum * JITTER * jitter


def _worthwhile(interval: float, age: float, durations: Sequence[float]) -> float:
    """Seconds until a poll has a fair chance to find the job ended, judged by jobs that were open at this age."""
    if len(durations) < ENOUGH:
        return 0.0
    ended = bisect_right(durations, age)
    still = len(durations) - ended
    if not still:
        return min(AGEING * (age - durations[-1]), AGED * interval)
    likely, rare = (durations[ended + math.ceil(share * still) - 1] - age for share in (LIKELY, RARE))
    thick = min(likely, STRETCH * interval)
    return max(thick, rare) if still >= ENOUGH else thick


def moments(operation: Operation, age: float, left: float) -> tuple[float, ...]:
    """Seconds until a poll must come: at the deadline, when the end of the external id is near, and just before it.

    Args:
        operation: of the job.
        age: of the job, since its submit.
        left: until its deadline.
    """
    if operation.expiry is None:
        return (left,)
    return left, operation.expiry * (1 - NEAR_EXPIRY) - age, operation.expiry - operation.poll_every - age


def in_time(countdown: float, minimum: float, moments: Sequence[float]) -> float:
    """The countdown, shortened to the next of these moments, but never below `minimum`."""
    return max(minimum, min([countdown, *(moment for moment in moments if moment > 0)]))
