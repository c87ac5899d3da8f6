"""What one process counts for /metrics, in memory, until `worker.store.stats` adds it to the store.

Only what the store's scripts cannot see is counted here: requests, and how late steps start. What becomes of jobs is
counted by the scripts that decide it.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping

from worker.jobs import Claim

REQUEST_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the classes of request durations; one more class is above them all."""

LATE_BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)
"""The same for how late steps start."""

_LATE_MS = tuple(int(bound * 1000) for bound in LATE_BOUNDS)

_RESULTS = {**{status: f"{status // 100}xx" for status in range(100, 600)}, 429: "429"}

Name = tuple[str | int, ...]
"""What is counted, and its labels."""


def result_of(status: int) -> str:
    """The class of an HTTP status: `2xx`, `429`, `4xx` …"""
    return _RESULTS.get(status, "other")


class Tally:
    """The counts of one process. Used from one event loop."""

    def __init__(self) -> None:
        self._counts: defaultdict[Name, int] = defaultdict(int)

    def request(self, provider: str, kind: str, result: str, seconds: float) -> None:
        """One request is over. `kind` is a line of the ledger (`worker.providers.exchange.Count`), or `other`."""
        counts = self._counts
        counts["requests", provider, kind, result, bisect_left(REQUEST_BOUNDS, seconds)] += 1
        counts["request-micros", provider, kind] += int(seconds * 1_000_000)

    def started(self, lane: str, claims: Iterable[Claim], now: int) -> None:
        """Steps start `now`, in milliseconds of Redis's clock."""
        counts = self._counts
        step, _, name = lane.partition(":")
        provider = "" if step == "deliver" else name  # there may be any number of targets
        total = 0
        for claim in claims:
            if claim.due:  # a worker of the previous release does not tell
                late = max(0, now - claim.due)
                counts["late", step, provider, bisect_left(_LATE_MS, late)] += 1
                total += late
        counts["late-ms", step, provider] += total

    def take(self) -> Mapping[Name, int]:
        """What was counted since the last time."""
        taken, self._counts = self._counts, defaultdict(int)
        return taken

    def give_back(self, taken: Mapping[Name, int]) -> None:
        """It could not be added to the store: it is taken again next time."""
        for name, many in taken.items():
            self._counts[name] += many
