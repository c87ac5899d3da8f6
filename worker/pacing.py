"""How long until the next try. Pure; all times in seconds."""

import random

from config.settings import StepSettings

JITTER = 0.1
"""Share by which a poll's countdown may be longer, so that jobs enqueued together do not stay together."""


def backoff(step: StepSettings, attempts: int, retry_after: float | None = None) -> float:
    """Countdown before the next attempt: exponential, half of it random, capped; what the provider asked for wins."""
    ceiling: float = min(step.backoff * 2.0 ** min(attempts, 32), step.backoff_max)
    own = ceiling * random.uniform(0.5, 1.0)
    return own if retry_after is None else max(own, min(retry_after, step.backoff_max))


def poll_countdown(interval: float, asked: float | None = None) -> float:
    """Countdown before the next poll: never below `interval`, with jitter above it; `asked` if that is later."""
    return max(interval, asked or 0.0) * random.uniform(1.0, 1.0 + JITTER)
