"""What an error means for a delivery: another attempt, or the dead letter."""

import asyncio

import pytest

from outwait.config.groups import StepSettings
from outwait.tasks.deliver import decide_error, delivery_retries, ended_workers
from outwait.worker.model import errors
from outwait.worker.model.errors import OutwaitError
from outwait.worker.model.jobs import Claim, JobError, TimelineEntry
from outwait.worker.model.outcomes import Dead, Outcome, Redeliver, ReleaseDelivery
from tests.unit.error_tree import BESIDE_THE_HANDLERS, ERRORS

CLAIM = Claim(work_id="j1#1", fence=7, attempts=2)
RETRIES = delivery_retries("crm", StepSettings(attempts=5, backoff=2, backoff_max=300), [1.0])


def again(code: str, message: str, countdown: int = 8000) -> Outcome:
    return Redeliver(work_id="j1#1", fence=7, countdown_ms=countdown, error=JobError(code, message).text())


def dead(code: str, message: str) -> Outcome:
    return Dead(work_id="j1#1", fence=7, error=JobError(code, message).text())


TABLE: dict[type[OutwaitError], Outcome] = {
    errors.HandlerError: again("handler_error", "what happened"),
    errors.DeliveryFailed: again("delivery_failed", "what happened"),
    errors.DeliveryRefused: dead("delivery_refused", "what happened"),
    **{kind: again("handler_error", f"{kind.__name__}: what happened") for kind in BESIDE_THE_HANDLERS},
    errors.Withheld: ReleaseDelivery(work_id="j1#1", fence=7),
}


def test_each_error_has_a_row() -> None:
    assert set(TABLE) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error(kind: type[OutwaitError]) -> None:
    assert decide_error(CLAIM, kind("what happened"), RETRIES, 1.0) == TABLE[kind]


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_of_the_last_attempt_is_the_end(kind: type[OutwaitError]) -> None:
    last = Claim(work_id="j1#1", fence=7, attempts=4)
    expected = ReleaseDelivery if kind is errors.Withheld else Dead
    assert isinstance(decide_error(last, kind("what happened"), RETRIES, 1.0), expected)


def test_a_stopped_worker_gives_the_delivery_back_even_at_the_last_attempt() -> None:
    last = Claim(work_id="j1#1", fence=7, attempts=4)
    expected = ReleaseDelivery(work_id="j1#1", fence=7)
    assert decide_error(last, asyncio.CancelledError(), RETRIES, 1.0) == expected


def test_an_error_shows_no_secret() -> None:
    outcome = decide_error(CLAIM, RuntimeError("Authorization: Bearer abcdefghijklmnop123456"), RETRIES, 1.0)
    assert isinstance(outcome, Redeliver)
    assert "abcdefghijklmnop123456" not in outcome.error


@pytest.mark.parametrize(
    ("target", "retry_after", "jitter", "countdown"),
    [
        ("crm", None, 0.0, 4000),
        ("crm", None, 1.0, 8000),
        ("crm", 60.0, 1.0, 60_000),
        ("crm", 1e9, 1.0, 3_600_000),
        ("https://a.example/hook", None, 0.0, 1_800_000),
        ("https://a.example/hook", None, 1.0, 1_980_000),
        ("https://a.example/hook", 2000.0, 0.0, 2_000_000),
        ("https://a.example/hook", 1e9, 0.0, 86_400_000),
    ],
)
def test_when_the_next_attempt_comes(target: str, retry_after: float | None, jitter: float, countdown: int) -> None:
    retries = delivery_retries(target, StepSettings(attempts=5, backoff=2), [5, 300, 1800, 86_400])
    outcome = decide_error(CLAIM, errors.DeliveryFailed("no", retry_after=retry_after), retries, jitter)
    assert outcome == again("delivery_failed", "no", countdown)


def test_a_webhook_has_as_many_attempts_as_its_schedule_and_the_first() -> None:
    assert delivery_retries("http://a.example/hook", StepSettings(attempts=9), [5, 300]).attempts == 3
    assert delivery_retries("stream://results", StepSettings(attempts=9), [5, 300]).attempts == 9


def test_a_handler_is_suspect_when_two_leases_of_its_deliveries_ended() -> None:
    lost = TimelineEntry(1.0, "lease-ended", "deliver:crm")
    other = [TimelineEntry(1.0, "lease-ended", "deliver:erp"), TimelineEntry(1.0, "retry", "deliver:crm")]
    assert not ended_workers([lost, *other], "crm")
    assert ended_workers([lost, *other, lost], "crm")
