"""What one process counts for /metrics, in memory, until `outwait.worker.store.statistics` adds it to the store.

Only what the store's scripts cannot see is counted here: requests, and the delay of steps. The scripts count what
happens to jobs.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping

from outwait.worker.model.counts import LATE_BOUNDS, REQUEST_BOUNDS, Name
from outwait.worker.model.jobs import Claim, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.times import milliseconds

_LATE_MS = tuple(milliseconds(bound) for bound in LATE_BOUNDS)


class Tally:
    """The counts of one process. Used from one event loop."""

    def __init__(self) -> None:
        self._counts: defaultdict[Name, int] = defaultdict(int)

    def request(self, provider: str, kind: str, result: str, seconds: float) -> None:
        """Count a request that has ended. `kind` is a line of the ledger (`Count` in exchange.py) or `other`."""
        counts = self._counts
        counts["requests", provider, kind, result, bisect_left(REQUEST_BOUNDS, seconds)] += 1
        counts["request-micros", provider, kind] += int(seconds * 1_000_000)

    def started(self, lane: Lane, claims: Iterable[Claim], now_ms: int) -> None:
        """Count steps that start `now_ms`, in milliseconds of Redis's clock."""
        counts = self._counts
        step = str(lane.step)
        provider = "" if lane.step is Step.DELIVER else lane.name  # there may be any number of targets
        total = 0
        for claim in claims:
            if claim.due_ms:  # a claim by a worker of the previous release has none
                late = max(0, now_ms - claim.due_ms)
                counts["late", step, provider, bisect_left(_LATE_MS, late)] += 1
                total += late
        counts["late-ms", step, provider] += total

    def take(self) -> Mapping[Name, int]:
        """The counts since the last call."""
        taken, self._counts = self._counts, defaultdict(int)
        return taken

    def give_back(self, taken: Mapping[Name, int]) -> None:
        """Add counts again that could not be stored; the next `take` returns them."""
        for name, count in taken.items():
            self._counts[name] += count
