"""What an error means for a callback; that of a cancel at the provider is only noted."""

import asyncio

import pytest

from outwait.config.groups import StepSettings
from outwait.tasks.callback import decide_cancel_error, decide_error, fan_out
from outwait.worker.model import errors
from outwait.worker.model.errors import OperatorError, OutwaitError, ProviderError
from outwait.worker.model.jobs import Claim
from outwait.worker.model.outcomes import Fanout, Release, Retry
from tests.unit.error_tree import ERRORS

CLAIM = Claim(work_id="j1", fence=7, attempts=2)
SETTINGS = StepSettings(attempts=3, backoff=2, backoff_max=300)
TARGETS = ("crm", "file:a.jsonl")

NOTED, RETRIED = True, False

CANCEL: dict[type[OutwaitError], bool] = {
    errors.ProviderError: NOTED,
    errors.NotSent: NOTED,
    errors.Withheld: NOTED,
    errors.AddressRefused: NOTED,
    errors.AnswerLost: NOTED,
    errors.RateLimited: NOTED,
    errors.Unavailable: NOTED,
    errors.Unreadable: NOTED,
    errors.Unauthorized: NOTED,
    errors.Rejected: NOTED,
    errors.ExternalIdUnknown: NOTED,
    errors.ResultTooLarge: NOTED,
    errors.OperatorError: NOTED,
    errors.ProviderNotConfigured: NOTED,
    errors.StoreUnfit: NOTED,
    errors.StoreUnavailable: NOTED,
    errors.StoreRefused: NOTED,
    errors.NoRedisServer: NOTED,
    errors.OutwaitError: RETRIED,
    errors.RequestError: RETRIED,
    errors.InvalidRequest: RETRIED,
    errors.WrongState: RETRIED,
    errors.Conflict: RETRIED,
    errors.ExternalIdTaken: RETRIED,
    errors.JobNotFound: RETRIED,
    errors.NotReplayable: RETRIED,
    errors.QuotaExceeded: RETRIED,
    errors.StorageExceeded: RETRIED,
    errors.Unauthenticated: RETRIED,
    errors.Forbidden: RETRIED,
    errors.HandlerError: RETRIED,
    errors.DeliveryFailed: RETRIED,
    errors.DeliveryRefused: RETRIED,
    errors.JobEnded: RETRIED,
    errors.JobFailed: RETRIED,
    errors.JobExpired: RETRIED,
    errors.JobCancelled: RETRIED,
}
"""What a provider's `cancel` may raise, and whether the fan-out goes on."""


def test_each_error_has_a_row() -> None:
    assert set(CANCEL) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_of_a_cancel(kind: type[OutwaitError]) -> None:
    error = kind("what happened")
    assert isinstance(error, ProviderError | OperatorError) is CANCEL[kind]
    if isinstance(error, ProviderError | OperatorError):
        noted = Fanout(work_id="j1", fence=7, targets=TARGETS, provider_answer=f"{kind.code}: what happened")
        assert decide_cancel_error(CLAIM, TARGETS, error) == noted


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind is not errors.Withheld])
def test_each_other_error_runs_the_callback_again_without_limit(kind: type[OutwaitError]) -> None:
    reason = f"{kind.__name__}: what happened"
    expected = Retry(work_id="j1", fence=7, countdown_ms=8000, reason=reason, attempt=1)
    assert decide_error(CLAIM, kind("what happened"), SETTINGS, 1.0) == expected
    late = Claim(work_id="j1", fence=7, attempts=1000)
    assert isinstance(decide_error(late, kind("what happened"), SETTINGS, 1.0), Retry)


def test_a_stopped_worker_gives_the_job_back() -> None:
    assert decide_error(CLAIM, asyncio.CancelledError(), SETTINGS, 1.0) == Release(work_id="j1", fence=7)


def test_a_worker_whose_lease_ended_gives_the_job_back() -> None:
    assert decide_error(CLAIM, errors.Withheld("stood still"), SETTINGS, 1.0) == Release(work_id="j1", fence=7)


def test_without_a_cancel_nothing_is_noted() -> None:
    assert fan_out(CLAIM, TARGETS) == Fanout(work_id="j1", fence=7, targets=TARGETS, provider_answer="")
