"""What an answer or an error means for a submit: nothing that the provider may have taken is ever sent again."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import BaseModel

from outwait.config.groups import StepSettings
from outwait.tasks.submit import SubmitContext, decide_answer, decide_error, decide_unsent
from outwait.worker.model import errors
from outwait.worker.model.errors import OutwaitError, ProviderError
from outwait.worker.model.jobs import Claim, JobError, JobState, UncertainPolicy
from outwait.worker.model.outcomes import Counts, End, Hold, Outcome, Release, Retry, Submitted, Uncertain
from outwait.worker.providers.contract import Operation, Params, SubmitAnswer
from tests.unit.error_tree import BESIDE_THE_PROVIDER, ERRORS

CLAIM = Claim(work_id="j1", fence=7, provider="unless", operation="query", attempts=2)
SETTINGS = StepSettings(attempts=10, backoff=2, backoff_max=300)
BACKOFF = 8000
"""Milliseconds before the third retry if the random part is 1."""

SENT = SubmitContext(CLAIM, SETTINGS, Counts(submits=1), jitter=1.0)
NOT_SENT = SENT._replace(sent=Counts())
REFUSED = frozenset({409})
OPERATION = Operation("query", Params, poll_every=2.0, first_poll=4.0, deadline=600.0)

Expected = Callable[[OutwaitError, int], Outcome]


def retry(reason: str, submits: int, attempt: int = 1, countdown_ms: int = BACKOFF) -> Retry:
    return Retry(work_id="j1", fence=7, countdown_ms=countdown_ms, reason=reason, attempt=attempt, submits=submits)


def again(error: OutwaitError, submits: int) -> Outcome:
    return retry(f"{error.code}: {error}", submits)


def again_without_an_attempt(error: OutwaitError, submits: int) -> Outcome:
    return retry(f"{error.code}: {error}", submits, attempt=0)


def given_back(error: OutwaitError, submits: int) -> Outcome:
    return Release(work_id="j1", fence=7)


def fails(error: OutwaitError, submits: int) -> Outcome:
    text = JobError(error.code, str(error)).text()
    return End(work_id="j1", fence=7, state=JobState.FAILED, error=text, submits=submits)


def uncertain(error: OutwaitError, submits: int) -> Outcome:
    reason = f"{error.code}: {error}"
    return Uncertain(work_id="j1", fence=7, reason=reason, submits=submits) if submits else retry(reason, 0)


def unexpected(error: OutwaitError, submits: int) -> Outcome:
    reason = f"{type(error).__name__}: {error}"
    return Uncertain(work_id="j1", fence=7, reason=reason, submits=submits) if submits else retry(reason, 0)


TABLE: dict[type[OutwaitError], Expected] = {
    errors.ProviderError: uncertain,
    errors.NotSent: again,
    errors.Withheld: given_back,
    errors.AddressRefused: again,
    errors.AnswerLost: uncertain,
    errors.RateLimited: again_without_an_attempt,
    errors.Unavailable: uncertain,
    errors.Unreadable: uncertain,
    errors.Unauthorized: again,
    errors.Rejected: fails,
    errors.ExternalIdUnknown: uncertain,
    errors.ResultTooLarge: uncertain,
    **dict.fromkeys(BESIDE_THE_PROVIDER, unexpected),
}


def test_each_error_has_a_row() -> None:
    assert set(TABLE) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error(kind: type[OutwaitError]) -> None:
    error = kind("what happened")
    assert decide_error(SENT, error, REFUSED) == TABLE[kind](error, 1)
    assert decide_error(NOT_SENT, error, REFUSED) == TABLE[kind](error, 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Rejected("taken already", status=409), again),  # its provider documents it as certainly not taken
        (errors.Unavailable("busy", status=409), again),
        (errors.Unavailable("busy", status=503), uncertain),
        (errors.ExternalIdUnknown("wrong address", status=404), fails),
        (errors.Unauthorized("no", status=403), again),
        (errors.RateLimited("slow down", status=429), again_without_an_attempt),
    ],
)
def test_the_status_counts_too(error: ProviderError, expected: Expected) -> None:
    assert decide_error(SENT, error, REFUSED) == expected(error, 1)


def test_a_stopped_worker_leaves_a_job_uncertain_only_if_a_request_left() -> None:
    reason = "the worker stopped before the answer came"
    stopped = asyncio.CancelledError()
    assert decide_error(SENT, stopped, REFUSED) == Uncertain(work_id="j1", fence=7, reason=reason, submits=1)
    assert decide_error(NOT_SENT, stopped, REFUSED) == retry(reason, 0)


def test_an_unexpected_exception_shows_no_secret() -> None:
    outcome = decide_error(SENT, RuntimeError("Authorization: Bearer abcdefghijklmnop123456"), REFUSED)
    assert isinstance(outcome, Uncertain)
    assert "abcdefghijklmnop123456" not in outcome.reason


@pytest.mark.parametrize(
    ("kind", "attempts", "ends"),
    [
        (errors.NotSent, 8, False),
        (errors.NotSent, 9, True),
        (errors.Unauthorized, 9, True),
        (errors.RateLimited, 9, False),  # the wait is not an attempt
        (errors.RateLimited, 10, True),
        (errors.AnswerLost, 9, False),  # it may have been taken: the provider's policy decides
    ],
)
def test_the_last_attempt_fails_the_job(kind: type[ProviderError], attempts: int, *, ends: bool) -> None:
    claim = Claim(work_id="j1", fence=7, attempts=attempts)
    assert isinstance(decide_error(SENT._replace(claim=claim), kind("x"), REFUSED), End) is ends


@pytest.mark.parametrize(
    ("retry_after", "jitter", "countdown"),
    [(None, 0.0, 4000), (None, 1.0, 8000), (60.0, 1.0, 60_000), (1.0, 1.0, 8000), (1e9, 1.0, 3_600_000)],
)
def test_a_retry_obeys_retry_after_within_reason(retry_after: float | None, jitter: float, countdown: int) -> None:
    error = errors.RateLimited("slow down", retry_after=retry_after)
    outcome = decide_error(SENT._replace(jitter=jitter), error, REFUSED)
    assert outcome == retry("rate_limited: slow down", 1, attempt=0, countdown_ms=countdown)


class Read(BaseModel):
    """Parameters that were read."""


def ended(code: str, message: str) -> End:
    return End(work_id="j1", fence=7, state=JobState.FAILED, error=JobError(code, message).text())


@pytest.mark.parametrize(
    ("claim", "params", "expected"),
    [
        (CLAIM, Read(), None),
        (CLAIM, None, ended("lost_request", "the job's parameters are no longer in Redis")),
        (CLAIM, errors.InvalidRequest("query: is missing"), ended("invalid_request", "query: is missing")),
        (CLAIM, errors.ProviderNotConfigured("no key"), ended("provider_not_configured", "no key")),
        (
            Claim(work_id="j1", fence=7, attempts=10),
            Read(),
            ended("not_submitted", "gave up after 10 attempts to submit"),
        ),
    ],
)
def test_what_is_not_sent_at_all(claim: Claim, params: BaseModel | OutwaitError | None, expected: End | None) -> None:
    assert decide_unsent(NOT_SENT._replace(claim=claim), params, UncertainPolicy.HOLD) == expected


UNCERTAIN: dict[UncertainPolicy, Outcome] = {
    UncertainPolicy.HOLD: Hold(work_id="j1", fence=7, reason="the provider may have the job: a person decides"),
    UncertainPolicy.RESUBMIT: Retry(
        work_id="j1", fence=7, countdown_ms=0, reason="uncertain: the provider's policy is to submit again", attempt=1
    ),
    UncertainPolicy.FAIL: ended("uncertain", "the provider may have the job; the policy is to fail it"),
}


@pytest.mark.parametrize("policy", UncertainPolicy)
@pytest.mark.parametrize("params", [Read(), None, errors.InvalidRequest("x")])
def test_an_uncertain_job_follows_the_policy_whatever_its_parameters_are(
    policy: UncertainPolicy, params: BaseModel | OutwaitError | None
) -> None:
    claim = Claim(work_id="j1", fence=7, state=JobState.UNCERTAIN, attempts=99)
    assert decide_unsent(NOT_SENT._replace(claim=claim), params, policy) == UNCERTAIN[policy]


LEARNT = [float(seconds) for seconds in range(50, 90)]
"""Durations of forty jobs."""


@pytest.mark.parametrize(
    ("asked", "durations", "deadline", "countdown"),
    [
        (None, [], 0, 4000),  # as the operation says
        (1.5, LEARNT, 0, 1500),  # as the answer says
        (None, LEARNT, 0, 50_000),  # when the first jobs usually end
        (None, LEARNT, 11_000, 10_000),  # but not after the deadline
        (None, LEARNT, 2000, 4000),  # and not sooner than the first poll may come
    ],
)
def test_a_submitted_job_waits_for_its_first_poll(
    asked: float | None, durations: list[float], deadline: int, countdown: int
) -> None:
    claim = Claim(work_id="j1", fence=7, deadline_ms=deadline)
    context = SubmitContext(claim, SETTINGS, Counts(submits=1, fetches=2), jitter=0.0)
    answer = SubmitAnswer("x-1", memo="m", first_poll=asked)
    assert decide_answer(context, answer, OPERATION, 1000, durations) == Submitted(
        work_id="j1", fence=7, external_id="x-1", memo="m", countdown_ms=countdown, submits=1, fetches=2
    )


@pytest.mark.parametrize(
    ("retry_after", "first_poll", "deadline", "countdown"),
    [
        (90.0, None, 0, 90_000),
        (1.0, None, 0, 4000),  # as the operation says
        (90.0, 0.0, 0, 90_000),  # not even what the provider's code wants at once
        (90.0, 300.0, 0, 300_000),
        (90.0, None, 61_000, 90_000),  # not even at the deadline
        (9e9, None, 0, 3_600_000),
    ],
)
def test_the_first_poll_waits_as_the_submits_answer_asks(
    retry_after: float, first_poll: float | None, deadline: int, countdown: int
) -> None:
    claim = Claim(work_id="j1", fence=7, deadline_ms=deadline)
    context = SubmitContext(claim, SETTINGS, Counts(submits=1), jitter=0.0, first_poll_in=retry_after)
    outcome = decide_answer(context, SubmitAnswer("x-1", first_poll=first_poll), OPERATION, 1000, [])
    assert isinstance(outcome, Submitted)
    assert (outcome.countdown_ms, outcome.not_before_ms) == (countdown, min(retry_after, 3600) * 1000)


def test_the_first_poll_comes_before_the_external_id_expires() -> None:
    context = SubmitContext(CLAIM, SETTINGS, Counts(submits=1), jitter=1.0)
    outcome = decide_answer(context, SubmitAnswer("x-1"), replace(OPERATION, expiry=20.0), 0, LEARNT)
    assert isinstance(outcome, Submitted)
    assert outcome.countdown_ms == 18_000


def test_a_job_without_an_external_id_is_looked_at_at_its_deadline_unless_a_webhook_comes() -> None:
    claim = Claim(work_id="j1", fence=7, deadline_ms=90_000)
    context = SubmitContext(claim, SETTINGS, Counts(submits=1), jitter=0.0)
    outcome = decide_answer(context, SubmitAnswer("", first_poll=1.0), OPERATION, 1000, LEARNT)
    assert isinstance(outcome, Submitted)
    assert (outcome.external_id, outcome.countdown_ms) == ("", 89_000)
