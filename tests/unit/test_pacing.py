"""When the next poll comes: the provider's minimum holds, what was learnt is used, and learning stays put."""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outwait.config.groups import StepSettings
from outwait.worker.engine import pacing
from outwait.worker.providers.contract import Operation, Params

SCHEDULE = st.lists(st.floats(1, 1e5), min_size=1, max_size=12)
SECONDS = st.floats(0, 1e7, allow_nan=False)
JITTER = st.floats(0, 1)
DURATIONS = st.lists(SECONDS, max_size=200).map(sorted)
HOUR = list(range(3000, 4200, 6))  # two hundred jobs of 50 to 70 minutes


@given(
    interval=st.floats(0.1, 4000),
    asked=st.none() | SECONDS,
    age=SECONDS,
    durations=DURATIONS,
    jitter=JITTER,
)
def test_a_poll_never_comes_sooner_than_the_provider_allows_and_asks_nor_unboundedly_late(
    interval: float, asked: float | None, age: float, durations: list[float], jitter: float
) -> None:
    countdown = pacing.poll_countdown(interval, asked, age, durations, jitter=jitter)
    least = max(interval, min(asked or 0, pacing.LONGEST))
    assert least <= countdown <= (max(least, pacing.LONGEST) + least * pacing.JITTER) * (1 + 1e-9)


@given(
    interval=st.floats(0.1, 4000),
    asked=st.none() | SECONDS,
    age=SECONDS,
    few=st.lists(SECONDS, max_size=19),
    jitter=JITTER,
)
def test_with_too_little_known_the_interval_counts(
    interval: float, asked: float | None, age: float, few: list[float], jitter: float
) -> None:
    least = max(interval, min(asked or 0, pacing.LONGEST))
    assert pacing.poll_countdown(interval, asked, age, sorted(few), jitter=jitter) <= least * (1 + pacing.JITTER)


@given(countdown=SECONDS, least=SECONDS, moments=st.lists(st.floats(-1e6, 1e6)))
def test_a_countdown_is_shortened_to_the_next_moment_but_not_below_the_least(
    countdown: float, least: float, moments: list[float]
) -> None:
    result = pacing.in_time(countdown, least, moments)
    assert result >= least
    assert result == least or all(result <= moment for moment in moments if moment > 0)
    assert result <= max(countdown, least)


def test_the_first_poll_comes_when_the_first_jobs_usually_end() -> None:
    assert 3000 <= pacing.poll_countdown(30, durations=HOUR, jitter=random.random()) <= 3060


def test_a_job_that_outlives_the_short_ones_is_next_polled_when_the_long_ones_end() -> None:
    two_kinds = sorted([20 + n / 10 for n in range(100)] + [600 + n for n in range(100)])
    assert 560 <= 35 + pacing.poll_countdown(5, age=35, durations=two_kinds, jitter=random.random()) <= 605


def test_a_job_older_than_any_other_is_polled_less_and_less_often() -> None:
    ages = [4200.0]
    while len(ages) < 30:
        ages.append(ages[-1] + pacing.poll_countdown(30, age=ages[-1], durations=HOUR, jitter=random.random()))
    gaps = [after - before for before, after in pairwise(ages)]
    assert gaps[0] <= 33
    assert 300 <= gaps[-1] <= 303
    assert all(after > before - 3 for before, after in pairwise(gaps))  # jitter apart


def test_what_the_provider_asks_for_is_obeyed_up_to_an_hour() -> None:
    assert pacing.poll_countdown(5, 60, jitter=0) == 60
    assert pacing.poll_countdown(5, 60, 100, HOUR, jitter=0) >= 60
    assert pacing.poll_countdown(5, 1e9, jitter=1) == pytest.approx(3600 * 1.1)
    step = StepSettings()
    assert pacing.backoff(step, 0, 600, jitter=1) == 600
    assert pacing.backoff(step, 0, 1e9, jitter=1) == 3600


def test_a_retry_waits_twice_as_long_each_time_up_to_the_limit_and_half_of_it_is_random() -> None:
    step = StepSettings(backoff=2, backoff_max=300)
    assert [pacing.backoff(step, attempts, jitter=1) for attempts in (0, 1, 2, 7, 8, 1000)] == [2, 4, 8, 256, 300, 300]
    assert pacing.backoff(step, 2, jitter=0) == 4


def test_the_last_polls_come_at_the_deadline_and_before_the_external_id_expires() -> None:
    operation = Operation("audio", Params, poll_every=30, first_poll=30, deadline=1e6, expiry=1000.0)
    assert pacing.moments(operation, 400, 5000) == (5000, 500, 570)
    assert pacing.in_time(900, 30, pacing.moments(operation, 400, 5000)) == 500
    assert pacing.in_time(900, 30, pacing.moments(operation, 900, 5000)) == 70
    assert pacing.in_time(900, 30, pacing.moments(operation, 900, 50)) == 50
    assert pacing.in_time(900, 30, pacing.moments(operation, 960, 5000)) == 30
    assert pacing.in_time(900, 30, pacing.moments(replace(operation, expiry=None), 960, math.inf)) == 900


class Learning:
    """Jobs one after the other, polled as the poll step does, learnt from as the record script does."""

    def __init__(self, took: Callable[[], float]) -> None:
        self.took = took
        self.known: deque[float] = deque(maxlen=200)

    def run(self, jobs: int) -> tuple[float, float, float]:
        """Polls a job, lateness, and age at the first poll, on average."""
        return tuple(map(mean, zip(*(self._job() for _ in range(jobs)), strict=True)))  # type: ignore[return-value]

    def _job(self) -> tuple[float, float, float]:
        ends, ages, durations = self.took(), [0.0], sorted(self.known)
        while ages[-1] < ends:
            ages.append(ages[-1] + pacing.poll_countdown(5, age=ages[-1], durations=durations, jitter=random.random()))
        unseen = ages[-1] - (ages[-2] if len(ages) > 2 else 0)
        self.known.appendleft(ages[-1] - unseen / 2)
        return len(ages) - 1, ages[-1] - ends, ages[1]


@pytest.fixture(autouse=True)
def _same_chance_each_time() -> None:
    random.seed(1)


def test_learning_from_polled_durations_stays_put() -> None:
    jobs = Learning(lambda: random.gauss(60, 3))
    polls, _, first = jobs.run(20)
    assert first < 6
    assert polls > 10
    early = jobs.run(500)
    late = jobs.run(2000)
    assert late[0] < 3.5
    assert late[1] < 5
    assert 45 < late[2] < 58
    assert abs(late[2] - early[2]) < 8


def test_what_was_learnt_is_unlearnt_when_jobs_become_faster_or_slower() -> None:
    jobs = Learning(lambda: random.gauss(300, 20))
    jobs.run(300)
    jobs.took = lambda: random.gauss(30, 2)
    jobs.run(200)
    _, late, first = jobs.run(200)
    assert late < 5
    assert first < 30
    jobs.took = lambda: random.gauss(300, 20)
    jobs.run(300)
    polls, late, first = jobs.run(200)
    assert polls < 20
    assert late < 10
    assert first > 150


@given(schedule=SCHEDULE, asked=st.none() | SECONDS, jitter=JITTER, data=st.data())
def test_webhooks_follow_their_schedule_unless_a_receiver_asks_for_longer(
    schedule: list[float], asked: float | None, jitter: float, data: st.DataObject
) -> None:
    attempts = data.draw(st.integers(0, len(schedule) - 1))
    countdown = pacing.scheduled(schedule, attempts, asked, jitter=jitter)
    least = max(schedule[attempts], min(asked or 0, max(*schedule, pacing.LONGEST)))
    assert least <= countdown <= least * (1 + pacing.JITTER) * (1 + 1e-9)
