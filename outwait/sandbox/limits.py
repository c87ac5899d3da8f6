"""A provider's rate limit: a sliding window, and the penalty for exceeding it."""

from collections import deque


class Limiter:
    """One counter, shared by all requests of a rate group. Times in seconds.

    Args:
        limit: requests in one window; None: no limit.
        window: length of the window.
        penalty: how long no request is accepted after the limit was exceeded.
        restarts: whether a request during the penalty restarts it (RingCentral's rule).

    Attributes:
        announced: when the first 429 of the present penalty, or of the last one, was answered.
    """

    def __init__(self, limit: int | None, window: float, penalty: float, *, restarts: bool = False) -> None:
        self.limit = limit
        self.window = window
        self._penalty = penalty
        self._restarts = restarts
        self._accepted: deque[float] = deque()
        self._until = 0.0
        self.announced = 0.0

    def penal(self, now: float) -> bool:
        """Whether there is a penalty now."""
        return now < self._until

    def punish(self, now: float, seconds: float | None = None) -> None:
        """Start a penalty, with this length if one is given."""
        if seconds is not None:
            self._penalty = seconds
        if not self.penal(now):
            self.announced = now
        self._until = now + self._penalty

    def wait(self, now: float) -> float | None:
        """Accept and count a request (None), or return the seconds to wait."""
        if self.penal(now):
            if self._restarts:
                self._until = now + self._penalty
            return self._until - now
        if self.limit is None:
            return None
        if self.remaining(now) == 0:
            self.punish(now)
            return self._penalty
        self._accepted.append(now)
        return None

    def remaining(self, now: float) -> int:
        """Requests that would be accepted now, if there is a limit."""
        accepted = self._accepted
        while accepted and accepted[0] <= now - self.window:
            accepted.popleft()
        return (self.limit or 0) - len(accepted)
