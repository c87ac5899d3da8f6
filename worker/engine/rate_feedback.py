"""What a step that is over tells the governor. The governor itself acts at claim time, in the claim script."""

from outwait.worker.model.errors import AnswerLost, NotSent, ProviderError, RateLimited, Unavailable, Unreadable
from outwait.worker.model.jobs import Claim
from outwait.worker.model.outcomes import Outage, Outcome, Pause, Spent
from outwait.worker.providers.contract import ProviderSettings
from outwait.worker.providers.exchange import Exchange
from outwait.worker.store.lanes import LanePolicy

UNTOLD_PAUSE = 30.0
"""Seconds to be silent after a 429 that says nothing (RingCentral asks for at least 30)."""

LONGEST_PAUSE = 3600.0
"""Seconds that no answer can silence us longer than."""


OUTAGES = (NotSent, AnswerLost, Unavailable, Unreadable)
"""What counts as an outage of the provider: enough in a row open its breaker."""


def slow_down(exchange: Exchange, error: RateLimited) -> None:
    """The provider asked us to slow down: nothing at all is sent until then."""
    wanted = UNTOLD_PAUSE if error.retry_after is None else error.retry_after
    exchange.pause = min(max(exchange.pause or 0.0, wanted), LONGEST_PAUSE)


def rate_feedback(
    policy: LanePolicy, limits: ProviderSettings, claim: Claim, exchange: Exchange, error: ProviderError | None = None
) -> tuple[Outcome, ...]:
    """The requests that a step sent, the pause that it was asked for, and the outage that it met."""
    told: list[Outcome] = []
    if isinstance(error, OUTAGES):
        wait, longest = int(limits.breaker_wait * 1000), int(limits.breaker_longest * 1000)
        told.append(
            Outage(
                provider=policy.provider,
                reason=str(error),
                limit=limits.breaker_after,
                wait_ms=wait,
                longest_ms=longest,
            )
        )
    if exchange.pause:
        reason = f"{policy.provider} asked for {exchange.pause:g} s of silence"
        told.append(Pause(provider=policy.provider, pause_ms=int(exchange.pause * 1000), reason=reason))
    return (*told, *release_slot(policy, claim.work_id, claim.fence - 1, exchange.ledger.total()))


def request(claim: Claim) -> str:
    """What a running step's request is called in the rate window: by its claim's fence, which `begin` has raised."""
    return f"{claim.work_id}:{claim.fence - 1}"


def release_slot(policy: LanePolicy, work_id: str, claim_fence: int, requests: int) -> tuple[Outcome, ...]:
    """What a claim really used of its provider's rate."""
    if not policy.rate_limit:
        return ()
    return (
        Spent(
            provider=policy.provider,
            work_id=work_id,
            claim_fence=claim_fence,
            requests=requests,
            window_ms=policy.rate_window_ms,
        ),
    )
