"""What an answer or an error means for a poll: the job is paid for, so it is asked for as long as that may help."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import httpx
import msgspec
import pytest

from outwait.config.groups import PollSettings, StoreSettings
from outwait.tasks.poll import UNKNOWN_POLLS, PollContext, decide_answer, decide_error, decide_unnamed
from outwait.worker.model import errors
from outwait.worker.model.errors import OutwaitError, ProviderError
from outwait.worker.model.jobs import Claim, JobError, JobState
from outwait.worker.model.json_text import NO_CHARACTERS
from outwait.worker.model.outcomes import Counts, End, Outcome, Release, Retry, Wait
from outwait.worker.providers.contract import Failed, Operation, Params, Pending, PollAnswer, Succeeded
from outwait.worker.providers.exchange import check
from outwait.worker.store import codec
from tests.unit.error_tree import BESIDE_THE_PROVIDER, ERRORS

NOW = 10_000_000
AGE = 300.0
"""Seconds since the submit."""

CLAIM = Claim(
    work_id="j1", fence=7, operation="query", external_id="x-1", attempts=2, submitted_ms=NOW - int(AGE * 1000)
)
OPERATION = Operation("query", Params, poll_every=5.0, first_poll=5.0, deadline=3600.0)
SETTINGS = PollSettings(attempts=10, backoff=2, backoff_max=300, unknown_for=600)
STORE = StoreSettings(result_max=50, compress_above=1000)
BACKOFF = 8000
"""Milliseconds before the third retry if the random part is 1."""

POLLED = PollContext(CLAIM, NOW, OPERATION, SETTINGS, Counts(polls=1, fetches=2), durations_s=(), jitter=1.0)

Expected = Callable[[OutwaitError], Outcome]


def retry(reason: str, attempt: int = 1, countdown_ms: int = BACKOFF) -> Retry:
    return Retry(work_id="j1", fence=7, countdown_ms=countdown_ms, reason=reason, attempt=attempt, polls=1, fetches=2)


def end(state: JobState, code: str, message: str) -> End:
    return End(work_id="j1", fence=7, state=state, error=JobError(code, message).text(), polls=1, fetches=2)


def end_with(error: JobError) -> End:
    return End(work_id="j1", fence=7, state=JobState.FAILED, error=error.text(), status="FAILED", polls=1, fetches=2)


def again(error: OutwaitError) -> Outcome:
    return retry(f"{error.code}: {error}")


def again_without_an_attempt(error: OutwaitError) -> Outcome:
    return retry(f"{error.code}: {error}", attempt=0)


def again_and_counts_that_the_id_is_unknown(error: OutwaitError) -> Outcome:
    return msgspec.structs.replace(retry(f"{error.code}: {error}"), unknown_polls=1)


def after_the_interval(error: OutwaitError) -> Outcome:
    return retry("the worker stopped before the answer came", attempt=0, countdown_ms=5000)


def fails(error: OutwaitError) -> Outcome:
    return end(JobState.FAILED, error.code, str(error))


def unexpected(error: OutwaitError) -> Outcome:
    return retry(f"answer_lost: {type(error).__name__}: {error}")


TABLE: dict[type[OutwaitError], Expected] = {
    errors.ProviderError: again,
    errors.NotSent: again,
    errors.Withheld: after_the_interval,
    errors.AddressRefused: again,
    errors.AnswerLost: again,
    errors.RateLimited: again_without_an_attempt,
    errors.Unavailable: again,
    errors.Unreadable: again,
    errors.Unauthorized: again,
    errors.Rejected: again,  # of a firewall, or of a deployment: a poll asks for nothing that could be refused for good
    errors.ExternalIdUnknown: again_and_counts_that_the_id_is_unknown,
    errors.ResultTooLarge: fails,
    **dict.fromkeys(BESIDE_THE_PROVIDER, unexpected),
}


def test_each_error_has_a_row() -> None:
    assert set(TABLE) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error(kind: type[OutwaitError]) -> None:
    error = kind("what happened")
    assert decide_error(POLLED, error) == TABLE[kind](error)


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if TABLE.get(kind) not in (fails, after_the_interval)])
@pytest.mark.parametrize(
    ("claim", "operation", "over"),
    [
        ({"deadline_ms": NOW}, {}, "the deadline passed"),
        ({}, {"expiry": AGE}, "the provider's id expired"),
    ],
)
def test_an_error_after_the_jobs_time_ends_it(
    kind: type[OutwaitError], claim: dict[str, int], operation: dict[str, float], over: str
) -> None:
    late = POLLED._replace(
        claim=Claim(work_id="j1", fence=7, submitted_ms=CLAIM.submitted_ms, **claim),
        operation=replace(OPERATION, **operation),
    )
    outcome = decide_error(late, kind("what happened"))
    assert isinstance(outcome, End)
    assert outcome.state == JobState.EXPIRED
    assert f"{over}; the last poll failed: " in outcome.error


@pytest.mark.parametrize(
    ("polls_before", "since_s_ago", "found_s_ago", "said"),
    [
        (0, 0, 0, 1),
        (1, 5, 0, 2),
        (3, 3000, 0, 4),  # for a long time, but not often
        (UNKNOWN_POLLS - 1, 599, 0, UNKNOWN_POLLS),  # often, but not for long
        (UNKNOWN_POLLS - 1, 600, 0, "fails"),
        (40, 700, 701, "fails"),
        (40, 700, 699, 1),  # since then a poll found it
        (40, 3601, 0, 1),  # that was another submit of this job
    ],
)
def test_an_unknown_external_id_must_be_said_several_times_over_a_while(
    polls_before: int, since_s_ago: int, found_s_ago: int, said: int | str
) -> None:
    claim = Claim(
        work_id="j1",
        fence=7,
        attempts=2,
        submitted_ms=NOW - 3_600_000,
        polled_ms=NOW - found_s_ago * 1000 if found_s_ago else 0,
        unknown_polls=polls_before,
        unknown_since_ms=NOW - since_s_ago * 1000,
    )
    outcome = decide_error(POLLED._replace(claim=claim), errors.ExternalIdUnknown("gone"))
    if said == "fails":
        message = f"gone ({polls_before + 1} polls in {since_s_ago} s)"
        assert outcome == end(JobState.FAILED, "external_id_unknown", message)
    else:
        assert isinstance(outcome, Retry)
        assert outcome.unknown_polls == said


def test_an_unknown_external_id_whose_life_is_over_has_expired() -> None:
    context = POLLED._replace(
        claim=msgspec.structs.replace(CLAIM, unknown_polls=9, unknown_since_ms=CLAIM.submitted_ms),
        operation=replace(OPERATION, expiry=AGE),
        settings=PollSettings(unknown_for=1),
    )
    message = "the provider's id expired; the last poll failed: external_id_unknown: gone"
    assert decide_error(context, errors.ExternalIdUnknown("gone")) == end(JobState.EXPIRED, "expired", message)


def test_a_stopped_worker_gives_the_job_back_and_keeps_the_providers_interval() -> None:
    stopped = asyncio.CancelledError()
    assert decide_error(POLLED._replace(sent=Counts()), stopped) == Release(work_id="j1", fence=7)
    reason = "the worker stopped before the answer came"
    assert decide_error(POLLED, stopped) == retry(reason, attempt=0, countdown_ms=5000)


def test_an_unexpected_exception_shows_no_secret() -> None:
    outcome = decide_error(POLLED, RuntimeError("Authorization: Bearer abcdefghijklmnop123456"))
    assert isinstance(outcome, Retry)
    assert "abcdefghijklmnop123456" not in outcome.reason


@pytest.mark.parametrize(
    ("attempts", "countdown_s"),
    [(2, 8), (7, 256), (8, 300), (9, 300), (10, 600), (11, 1200), (12, 2400), (13, 3600), (10_000, 3600)],
)
@pytest.mark.parametrize("kind", [errors.Unavailable, errors.Unauthorized, errors.Rejected])
def test_a_paid_job_is_polled_on_ever_more_rarely(kind: type[ProviderError], attempts: int, countdown_s: int) -> None:
    claim = Claim(work_id="j1", fence=7, attempts=attempts, submitted_ms=CLAIM.submitted_ms)
    outcome = decide_error(POLLED._replace(claim=claim), kind("no"))
    assert outcome == retry(f"{kind.code}: no", countdown_ms=countdown_s * 1000)


@pytest.mark.parametrize("status", [400, 401, 403, 405, 409, 421, 423, 425, 429, 431, 451, 500, 503])
def test_no_status_of_a_poll_ends_a_paid_job_before_its_deadline(status: int) -> None:
    answer = httpx.Response(status, request=httpx.Request("GET", "https://a.example/x"))
    with pytest.raises(ProviderError) as caught:
        check(answer)
    claim = Claim(work_id="j1", fence=7, attempts=500, submitted_ms=CLAIM.submitted_ms, deadline_ms=NOW + 1)
    assert isinstance(decide_error(POLLED._replace(claim=claim), caught.value), Retry)
    over = decide_error(POLLED._replace(claim=msgspec.structs.replace(claim, deadline_ms=NOW)), caught.value)
    assert isinstance(over, End)
    assert over.state is JobState.EXPIRED


@pytest.mark.parametrize(
    ("retry_after", "jitter", "poll_every", "deadline_in", "countdown"),
    [
        (None, 1.0, 5.0, math.inf, 8000),
        (None, 0.0, 5.0, math.inf, 5000),  # half of the backoff would be less than the provider allows
        (60.0, 1.0, 5.0, math.inf, 60_000),
        (1e9, 1.0, 5.0, math.inf, 3_600_000),
        (None, 1.0, 20.0, math.inf, 20_000),
        (None, 1.0, 5.0, 6.5, 6500),  # a last poll at the deadline
        (60.0, 1.0, 5.0, 6.5, 60_000),  # but not while the provider wants none
    ],
)
def test_when_a_failed_poll_is_tried_again(
    retry_after: float | None, jitter: float, poll_every: float, deadline_in: float, countdown: int
) -> None:
    deadline = 0 if deadline_in == math.inf else NOW + int(deadline_in * 1000)
    claim = Claim(work_id="j1", fence=7, attempts=2, submitted_ms=CLAIM.submitted_ms, deadline_ms=deadline)
    context = POLLED._replace(claim=claim, jitter=jitter, operation=replace(OPERATION, poll_every=poll_every))
    outcome = decide_error(context, errors.Unavailable("no", retry_after=retry_after))
    assert outcome == retry("unavailable: no", countdown_ms=countdown)


def wait(**fields: object) -> Wait:
    values: dict[str, object] = {"countdown_ms": 5500, "status": "RUNNING", "polls": 1, "fetches": 2}
    return Wait(work_id="j1", fence=7, **(values | fields))  # type: ignore[arg-type]


def succeeded(result: object, status: str = "DONE") -> End:
    return End(
        work_id="j1",
        fence=7,
        state=JobState.SUCCEEDED,
        result=codec.blob(codec.encode(result), 1000),
        status=status,
        polls=1,
        fetches=2,
    )


ANSWERS: dict[type[PollAnswer], list[tuple[PollAnswer, Outcome]]] = {
    Pending: [
        (Pending("RUNNING"), wait()),
        (Pending("RUNNING", poll_in=60), wait(countdown_ms=66_000)),
        (Pending("RUNNING", poll_in=1), wait()),  # never sooner than the vendor allows
        (Pending("RUNNING", memo="page 2", warning="odd"), wait(memo="page 2", warning="odd")),
        (Pending("RUNNING", safety=120), wait(countdown_ms=120_000, webhook_countdown_ms=5500)),
    ],
    Succeeded: [
        (Succeeded({"text": "hi"}, "DONE"), succeeded({"text": "hi"})),
        (
            Succeeded({"text": "\ud800"}, "DONE", "odd"),
            msgspec.structs.replace(succeeded({"text": "\ufffd"}), warning=f"odd; {NO_CHARACTERS}"),
        ),
        (
            Succeeded("x" * 49, "DONE"),
            end(
                JobState.FAILED,
                "result_too_large",
                "the result has 51 bytes, more than the 50 of OUTWAIT_STORE__RESULT_MAX",
            ),
        ),
    ],
    Failed: [
        (
            Failed("FAILED", "E7", "no https://x.example/a?token=s3cret", {"url": ["https://x.example/s3cret"]}),
            end_with(
                JobError(
                    "provider_failed",
                    "E7: no https://x.example/…",
                    {"status": "FAILED", "code": "E7", "detail": {"url": ["https://x.example/…"]}},
                )
            ),
        ),
        (
            Failed("FAILED", "E7", "bad audio", {"line": 1}),
            end_with(
                JobError("provider_failed", "E7: bad audio", {"status": "FAILED", "code": "E7", "detail": {"line": 1}})
            ),
        ),
    ],
}


def test_each_answer_has_rows() -> None:
    assert set(ANSWERS) == set(get_args(PollAnswer))


@pytest.mark.parametrize(("answer", "expected"), [row for rows in ANSWERS.values() for row in rows])
def test_each_answer(answer: PollAnswer, expected: Outcome) -> None:
    assert decide_answer(POLLED, answer, STORE) == expected


@pytest.mark.parametrize(
    ("claim", "operation", "message"),
    [
        ({"deadline_ms": NOW}, {}, "the deadline passed; the provider's last status was RUNNING"),
        ({}, {"expiry": AGE}, "the provider's id expired; the provider's last status was RUNNING"),
    ],
)
def test_an_unfinished_job_whose_time_is_over_expires(
    claim: dict[str, int], operation: dict[str, float], message: str
) -> None:
    late = POLLED._replace(
        claim=Claim(work_id="j1", fence=7, submitted_ms=CLAIM.submitted_ms, **claim),
        operation=replace(OPERATION, **operation),
    )
    assert decide_answer(late, Pending("RUNNING"), STORE) == end(JobState.EXPIRED, "expired", message)
    partial = Pending("DONE", partial=Succeeded("late", "DONE", "a part is missing"))
    assert decide_answer(late, partial, STORE) == msgspec.structs.replace(
        succeeded("late"), warning="a part is missing"
    )
    assert decide_answer(late, Succeeded("late", "DONE"), STORE) == succeeded("late"), "a result is never thrown away"


def test_the_last_polls_come_at_the_deadline_and_before_the_external_id_expires() -> None:
    soon = Claim(work_id="j1", fence=7, submitted_ms=CLAIM.submitted_ms, deadline_ms=NOW + 30_000)
    pending = Pending("RUNNING", safety=600)
    assert decide_answer(POLLED._replace(claim=soon), pending, STORE) == wait(
        countdown_ms=30_000, webhook_countdown_ms=5500
    )
    mortal = POLLED._replace(operation=replace(OPERATION, expiry=400.0))
    assert decide_answer(mortal, pending, STORE) == wait(
        countdown_ms=60_000, webhook_countdown_ms=5500
    )  # a tenth of its life is left


@pytest.mark.parametrize(
    ("expiry", "said_in", "countdown", "warning"),
    [
        (None, 150.0, 105_000, ""),  # a tenth of 450 s is left then
        (7 * 86400.0, 150.0, 105_000, ""),  # sooner than the operation says
        (AGE, 86400.0, 600_000, ""),  # later than it says: the job does not expire now
        (None, 20.0, 15_000, "the provider's id expires in 20 s"),  # the last poll is an interval before the end
    ],
)
def test_what_the_provider_says_of_its_ids_end_counts(
    expiry: float | None, said_in: float, countdown: int, warning: str
) -> None:
    context = POLLED._replace(operation=replace(OPERATION, expiry=expiry))
    assert decide_answer(context, Pending("RUNNING", safety=600, expires_in=said_in), STORE) == wait(
        countdown_ms=countdown,
        webhook_countdown_ms=5500,
        expiry_warning=warning,
        expires_ms=NOW + int(said_in * 1000),
    )


def test_it_is_said_when_most_of_the_external_ids_life_is_over() -> None:
    dying = POLLED._replace(operation=replace(OPERATION, expiry=330.0))
    expected = wait(expiry_warning="the provider's id expires in 30 s")
    assert decide_answer(dying, Pending("RUNNING"), STORE) == expected
    fresh = POLLED._replace(operation=replace(OPERATION, expiry=340.0))
    outcome = decide_answer(fresh, Pending("RUNNING"), STORE)
    assert isinstance(outcome, Wait)
    assert outcome.expiry_warning == ""


def test_what_was_learnt_puts_a_poll_off_to_when_jobs_of_this_age_end() -> None:
    learnt = tuple(float(seconds) for seconds in range(1000, 1200))
    outcome = decide_answer(POLLED._replace(durations_s=learnt, jitter=0.0), Pending("RUNNING"), STORE)
    assert outcome == wait(countdown_ms=703_000)


UNNAMED = POLLED._replace(claim=msgspec.structs.replace(CLAIM, external_id=""), sent=Counts())


@pytest.mark.parametrize(
    ("deadline_in", "expiry", "countdown"),
    [(math.inf, None, 3_600_000), (20.0, None, 20_000), (math.inf, AGE + 60, 24_000)],
)
def test_a_job_without_an_external_id_waits_for_its_webhook(
    deadline_in: float, expiry: float | None, countdown: int
) -> None:
    deadline = 0 if deadline_in == math.inf else NOW + int(deadline_in * 1000)
    context = UNNAMED._replace(
        claim=msgspec.structs.replace(UNNAMED.claim, deadline_ms=deadline), operation=replace(OPERATION, expiry=expiry)
    )
    assert decide_unnamed(context, None, STORE) == Wait(
        work_id="j1", fence=7, countdown_ms=countdown, status="", polls=0, webhook_countdown_ms=5000
    )


def test_a_job_without_an_external_id_ends_as_its_webhook_says_or_at_its_deadline() -> None:
    assert decide_unnamed(UNNAMED, Succeeded("hi", "DONE"), STORE) == End(
        work_id="j1",
        fence=7,
        state=JobState.SUCCEEDED,
        result=codec.blob(codec.encode("hi"), 1000),
        status="DONE",
    )
    late = UNNAMED._replace(claim=msgspec.structs.replace(UNNAMED.claim, deadline_ms=NOW))
    outcome = decide_unnamed(late, None, STORE)
    assert isinstance(outcome, End)
    assert (outcome.state, "no webhook said how the job ended" in outcome.error) == (JobState.EXPIRED, True)
    assert decide_unnamed(late, Failed("FAILED", "E7", "bad audio"), STORE) != outcome
