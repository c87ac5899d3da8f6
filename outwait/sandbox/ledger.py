"""What really arrived: every job with its requests, and totals by provider. The work for each request is constant."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from outwait.sandbox.behaviour import Behaviour, Call, Outcome, Plan

TEXT_MAX = 500
"""Characters kept of the text that identifies a job."""

_TRESPASSES_MAX = 1000
"""Requests during penalties that are listed individually."""

_LIST_MAX = 20
"""Uploads and webhook answers that are kept for each job."""


@dataclass(slots=True)
class Job:
    """One job at a provider. Times are seconds since 1970. `ready` is when it ends, infinite if never."""

    id: str
    provider: str
    operation: str
    digest: str
    text: str
    behaviour: Behaviour
    plan: Plan | None
    submitted: float
    started: float = math.inf
    length: float = 0
    ready: float = math.inf
    webhook: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    spoiled: str | None = None
    deleted: bool = False
    polls: int = 0
    first_polled: float | None = None
    polled: float | None = None
    shortest: float | None = None
    too_fast: int = 0
    fetches: int = 0
    uploads: list[dict[str, Any]] = field(default_factory=list)
    webhooks: list[dict[str, Any]] = field(default_factory=list)

    def share(self, now: float) -> float:
        """The share of its time that has passed: 0 at the start, 1 at its end (below 1 for a job that never ends)."""
        if self.is_over(now):
            return 1.0
        return min(max((now - self.started) / max(self.length, 1e-9), 0.0), 0.99)

    def is_over(self, now: float) -> bool:
        """Whether it has ended for those who ask now."""
        unfinished = self.behaviour.unfinished_polls
        return now >= self.ready and (not unfinished or self.polls > unfinished)

    def begin(self, now: float, length: float) -> None:
        """Start working on it, for `length` seconds."""
        self.started, self.length = now, length
        self.ready = math.inf if self.behaviour.outcome is Outcome.NEVER else now + length

    def poll(self, now: float, minimum: float) -> bool:
        """Count a poll. True: it came less than `minimum` seconds after the previous one."""
        self.polls += 1
        before, self.polled = self.polled, now
        if before is None:
            self.first_polled = now
            return False
        self.shortest = min(now - before, self.shortest if self.shortest is not None else math.inf)
        fast = now - before < minimum
        self.too_fast += fast
        return fast

    def entry(self) -> dict[str, Any]:
        """Its entry in the ledger."""
        return {
            "id": self.id,
            "provider": self.provider,
            "operation": self.operation,
            "digest": self.digest,
            "text": self.text,
            "submitted": self.submitted,
            "ready": self.ready if math.isfinite(self.ready) else None,
            "answer_fault": self.spoiled,
            "deleted": self.deleted,
            "polls": {
                "count": self.polls,
                "first": self.first_polled,
                "last": self.polled,
                "shortest_interval": self.shortest,
                "too_fast": self.too_fast,
            },
            "fetches": self.fetches,
            "uploads": self.uploads,
            "webhook": self.webhook,
            "webhooks": self.webhooks,
        }


def note(entries: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    """Add to one of a job's lists, unless it is full."""
    if len(entries) < _LIST_MAX:
        entries.append(entry)


@dataclass(slots=True)
class Totals:
    """Counts of one provider. Requests are counted as they arrive; `jobs` as they were really accepted."""

    requests: dict[str, int] = field(default_factory=lambda: {call: 0 for call in Call if call is not Call.ANY})
    jobs: int = 0
    repeated_submits: int = 0  # accepted although a job with an identical body was accepted before
    refused: int = 0  # answered with 4xx other than 429
    rate_limited: int = 0  # 429s answered
    in_penalty: int = 0  # requests received during a penalty
    trespasses: list[tuple[float, float]] = field(
        default_factory=list
    )  # of those: the time, and the seconds since the first 429
    polls_too_fast: int = 0
    faults: int = 0
    webhooks_sent: int = 0
    webhooks_acknowledged: int = 0
    in_flight: int = 0
    in_flight_peak: int = 0

    def trespass(self, arrived: float, announced: float) -> None:
        """Count a request during a penalty. A short delay after the 429 means that it had already left."""
        self.in_penalty += 1
        if len(self.trespasses) < _TRESPASSES_MAX:
            self.trespasses.append((arrived, arrived - announced))


class Ledger:
    """Jobs and totals."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.totals: dict[str, Totals] = {}
        self._bodies: set[str] = set()

    def of(self, provider: str) -> Totals:
        """The provider's totals."""
        totals = self.totals.get(provider)
        if totals is None:
            totals = self.totals[provider] = Totals()
        return totals

    def add(self, job: Job) -> None:
        """Add an accepted job."""
        job.text = job.text[:TEXT_MAX]
        self.jobs[job.id] = job
        totals = self.of(job.provider)
        totals.jobs += 1
        totals.repeated_submits += job.digest in self._bodies
        self._bodies.add(job.digest)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Totals by provider."""
        return {provider: dataclasses.asdict(totals) for provider, totals in self.totals.items()}
