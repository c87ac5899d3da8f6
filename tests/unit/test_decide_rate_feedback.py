"""What each error tells the governor: an outage, a pause, and the slot in the rate that is given back."""

import math

import msgspec
import pytest

from outwait.worker.engine.rate_feedback import pause_s, provider_feedback, rate_feedback
from outwait.worker.model import errors
from outwait.worker.model.errors import OutwaitError
from outwait.worker.model.jobs import Claim
from outwait.worker.model.outcomes import Outage, Outcome, Pause, Spent
from outwait.worker.providers.contract import ProviderSettings
from outwait.worker.store.lanes import LanePolicy
from tests.unit.error_tree import BESIDE_THE_PROVIDER, ERRORS

LIMITS = ProviderSettings(base_url="https://a.example", breaker_after=4, breaker_wait=2, breaker_longest=30)
POLICY = LanePolicy(batch=1, lease_ms=1000, cap=1, provider="unless")
CLAIM = Claim(work_id="j1", fence=7)

OUTAGE = Outage(provider="unless", reason="what happened", limit=4, wait_ms=2000, longest_ms=30_000)
PAUSE = Pause(provider="unless", pause_ms=30_000, reason="unless asked for 30 s of silence")

TABLE: dict[type[OutwaitError], tuple[Outcome, ...]] = {
    errors.ProviderError: (),
    errors.NotSent: (OUTAGE,),
    errors.Withheld: (),
    errors.AddressRefused: (OUTAGE,),
    errors.AnswerLost: (OUTAGE,),
    errors.RateLimited: (PAUSE,),
    errors.Unavailable: (OUTAGE,),
    errors.Unreadable: (OUTAGE,),
    errors.Unauthorized: (),
    errors.Rejected: (),
    errors.ExternalIdUnknown: (),
    errors.ResultTooLarge: (),
    **dict.fromkeys(BESIDE_THE_PROVIDER, ()),
}


def test_each_error_has_a_row() -> None:
    assert set(TABLE) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error(kind: type[OutwaitError]) -> None:
    assert provider_feedback("unless", LIMITS, kind("what happened"), None) == TABLE[kind]


@pytest.mark.parametrize(
    ("error", "requested_s", "expected"),
    [
        (None, None, 0),
        (None, 12.5, 12.5),  # an answer that was no error asked for it
        (errors.RateLimited("x"), None, 30),
        (errors.RateLimited("x", retry_after=5), None, 5),
        (errors.RateLimited("x", retry_after=5), 60.0, 60),
        (errors.RateLimited("x", retry_after=1e9), None, 3600),
        (errors.Unavailable("x", retry_after=5), None, 0),  # only this job's next try waits
        (None, 999_999_999.0, 3600),
        (errors.NotSent("no token", retry_after=1e9), 1e9, 3600),
        (None, math.inf, 3600),
        (None, math.nan, 0),
        (None, -5.0, 0),
        (errors.RateLimited("x", retry_after=math.nan), None, 0),
        (errors.RateLimited("x", retry_after=math.inf), None, 3600),
    ],
)
def test_how_long_nothing_is_sent(error: OutwaitError | None, requested_s: float | None, expected: float) -> None:
    assert pause_s(error, requested_s) == expected


def test_a_limited_rate_gets_its_slot_back_by_the_fence_of_the_claim() -> None:
    limited = msgspec.structs.replace(POLICY, rate_limit=10, rate_window_ms=60_000)
    spent = Spent(provider="unless", work_id="j1", claim_fence=6, requests=2, window_ms=60_000)
    feedback = rate_feedback(policy=limited, limits=LIMITS, claim=CLAIM, error=None, requested_s=None, requests=2)
    assert feedback == (spent,)
    error = errors.Unavailable("what happened")
    feedback = rate_feedback(policy=limited, limits=LIMITS, claim=CLAIM, error=error, requested_s=None, requests=2)
    assert feedback == (OUTAGE, spent)


def test_without_a_limit_a_good_answer_tells_nothing() -> None:
    assert rate_feedback(policy=POLICY, limits=LIMITS, claim=CLAIM, error=None, requested_s=None, requests=1) == ()
