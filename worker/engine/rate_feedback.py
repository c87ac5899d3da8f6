"""What a finished step means for the governor, which acts when the next work is claimed. Pure."""

from outwait.worker.model.errors import AnswerLost, NotSent, RateLimited, Unavailable, Unreadable, Withheld
from outwait.worker.model.jobs import Claim
from outwait.worker.model.outcomes import Outage, Outcome, Pause, Spent
from outwait.worker.model.times import milliseconds
from outwait.worker.providers.contract import ProviderSettings
from outwait.worker.store.lanes import LanePolicy

DEFAULT_PAUSE = 30.0
"""Seconds without a request after a 429 that names no time (RingCentral asks for at least 30)."""

LONGEST_PAUSE = 3600.0
"""Longest pause in seconds that a provider can ask for."""

OUTAGES = (NotSent, AnswerLost, Unavailable, Unreadable)
"""Errors that count as an outage of the provider: enough of them in a row open its circuit breaker."""


def pause_s(error: BaseException | None, requested_s: float | None) -> float:
    """Seconds for which nothing may be sent to the provider, at most LONGEST_PAUSE; 0 for no pause.

    Args:
        error: what the step raised, if it did.
        requested_s: the pause that an answer asked for during the step (`Exchange.pause`).
    """
    asked = max(0.0, requested_s or 0.0)  # not a number: 0
    if isinstance(error, RateLimited):
        asked = max(asked, DEFAULT_PAUSE if error.retry_after is None else error.retry_after)
    return min(asked, LONGEST_PAUSE)


def provider_feedback(
    provider: str, limits: ProviderSettings, error: BaseException | None, requested_s: float | None
) -> tuple[Outcome, ...]:
    """The outage that the error is, and the pause that the provider asked for."""
    outcomes: list[Outcome] = []
    if isinstance(error, OUTAGES) and not isinstance(error, Withheld):
        outcomes.append(
            Outage(
                provider=provider,
                reason=str(error),
                limit=limits.breaker_after,
                wait_ms=milliseconds(limits.breaker_wait),
                longest_ms=milliseconds(limits.breaker_longest),
            )
        )
    if pause := pause_s(error, requested_s):
        reason = f"{provider} asked for {pause:g} s of silence"
        outcomes.append(Pause(provider=provider, pause_ms=milliseconds(pause), reason=reason))
    return tuple(outcomes)


def release_slot(policy: LanePolicy, work_id: str, claim_fence: int, requests: int) -> tuple[Outcome, ...]:
    """Give back the slot in the provider's rate that a claim took, and count the requests that were really sent."""
    if not policy.rate_limit:
        return ()
    slot = Spent(
        provider=policy.provider,
        work_id=work_id,
        claim_fence=claim_fence,
        requests=requests,
        window_ms=policy.rate_window_ms,
    )
    return (slot,)


def rate_feedback(
    *,
    policy: LanePolicy,
    limits: ProviderSettings,
    claim: Claim,
    error: BaseException | None,
    requested_s: float | None,
    requests: int,
) -> tuple[Outcome, ...]:
    """Everything that the governor needs to know of one finished step: outage, pause and the requests sent."""
    slot = release_slot(policy, claim.work_id, claim.fence - 1, requests)
    if error is None and not requested_s:
        return slot
    return (*provider_feedback(policy.provider, limits, error, requested_s), *slot)


def slot_name(claim: Claim) -> str:
    """The name of a running step's slot in the rate window: by its claim's fence, which `begin` has raised by 1."""
    return f"{claim.work_id}:{claim.fence - 1}"
