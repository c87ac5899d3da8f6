"""What the steps share that talk to a provider: one provider with its limits, and one `run` for submit and poll."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outwait.worker.engine.rate_feedback import rate_feedback
from outwait.worker.model.errors import ProviderError, StoreUnavailable
from outwait.worker.model.jobs import Claim, Step
from outwait.worker.model.outcomes import Counts, Outcome
from outwait.worker.providers.contract import Operation, Provider, ProviderSettings
from outwait.worker.providers.exchange import Count, Exchange
from outwait.worker.providers.registry import Registry
from outwait.worker.store.lanes import LanePolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderGateway:
    """One provider, for one step of one batch.

    Args:
        name: of the provider.
        registry: the providers of this process.
        policy: how its lane and its rate are limited.
        limits: its settings that every provider has.
        new_exchange: starts a conversation with it, for one step of one job.
        durations_s: how long jobs of an operation took, in seconds, sorted; empty while too little is known.
    """

    name: str
    registry: Registry
    policy: LanePolicy
    limits: ProviderSettings
    new_exchange: Callable[[], Exchange]
    durations_s: Callable[[str], Sequence[float]]

    @property
    def provider(self) -> Provider:
        """Raises ProviderNotConfigured, and InvalidRequest if there is no such provider."""
        return self.registry.get(self.name)

    def operation(self, name: str) -> Operation:
        """Raises InvalidRequest."""
        return self.registry.operation(self.name, name)

    def feedback(self, claim: Claim, exchange: Exchange, error: BaseException | None) -> tuple[Outcome, ...]:
        """What the governor needs to know of a finished step."""
        return rate_feedback(
            policy=self.policy,
            limits=self.limits,
            claim=claim,
            error=error,
            requested_s=exchange.pause,
            requests=exchange.ledger.total(),
        )


@dataclass(kw_only=True)
class ProviderStep(ABC):
    """A step that asks the provider of a job: submit or poll."""

    step: ClassVar[Step]
    gateway: ProviderGateway

    @abstractmethod
    async def ask(self, claim: Claim, now_ms: int, exchange: Exchange) -> Outcome:
        """Ask the provider; what its answer means. Raises a ProviderError."""

    @abstractmethod
    def decide_error(self, claim: Claim, now_ms: int, sent: Counts, error: BaseException) -> Outcome:
        """What an error means, or the cancellation at shutdown. `sent` counts the requests that left."""

    async def run(self, claim: Claim, now_ms: int) -> Sequence[Outcome]:
        """Do the step for one job: its outcome first, then what the governor needs to know."""
        exchange = self.gateway.new_exchange()
        # No name outlives its clause: an error that its own traceback leads to stays in memory, the answer with it.
        try:
            outcome = await self.ask(claim, now_ms, exchange)
        except (ProviderError, StoreUnavailable, asyncio.CancelledError) as raised:
            return self._failed(claim, now_ms, exchange, raised)
        except Exception as raised:
            log.exception("%s-broken", self.step, extra={"job": claim.work_id, "provider": self.gateway.name})
            return self._failed(claim, now_ms, exchange, raised)
        return (outcome, *self.gateway.feedback(claim, exchange, None))

    def _failed(self, claim: Claim, now_ms: int, exchange: Exchange, error: BaseException) -> Sequence[Outcome]:
        outcome = self.decide_error(claim, now_ms, requests_sent(exchange), error)
        return (outcome, *self.gateway.feedback(claim, exchange, error))


def requests_sent(exchange: Exchange) -> Counts:
    """The requests that were really sent, for the job's ledger."""
    ledger = exchange.ledger
    return Counts(submits=ledger[Count.SUBMITS], polls=ledger[Count.POLLS], fetches=ledger[Count.FETCHES])
