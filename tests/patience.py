"""How long tests wait for what must come true: so long that a busy machine fails none of them.

A wait ends as soon as its condition holds, so patience costs nothing where all is well. `OUTWAIT_TEST_PATIENCE=3` makes
every limit three times as long, on a machine that needs it.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

FACTOR = float(os.environ.get("OUTWAIT_TEST_PATIENCE", "1"))

PATIENCE = 180 * FACTOR
"""Seconds that one condition may take to come true, one process to start or to end, one request to be answered."""

HANG = 5 * PATIENCE
"""Seconds after which a test is stopped (pytest-timeout): longer than its waits, whose messages say what went wrong."""

SOON, LATER = 0.02, 0.1
"""Seconds between two looks at a condition, at first and when it takes long: a look may cost milliseconds of CPU."""


async def until(holds: Callable[[], Awaitable[Any]], *, what: str = "") -> Any:
    """Wait for a condition, and give back what it gave."""
    for pause in _pauses():
        if result := await holds():
            return result
        await asyncio.sleep(pause)
    raise AssertionError(f"not within {PATIENCE:g} s: {what or holds}")


def wait_until(holds: Callable[[], Any], *, what: str = "") -> Any:
    """The same where nothing is asynchronous."""
    for pause in _pauses():
        if result := holds():
            return result
        time.sleep(pause)
    raise AssertionError(f"not within {PATIENCE:g} s: {what or holds}")


def _pauses() -> Iterator[float]:
    end, pause = time.monotonic() + PATIENCE, SOON
    while time.monotonic() < end:
        yield pause
        pause = min(1.2 * pause, LATER)
