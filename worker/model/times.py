"""Times: seconds everywhere, and whole milliseconds, under names in `_ms`, where the store's scripts count in them."""

import math


def milliseconds(seconds: float) -> int:
    """So many seconds as the store's scripts count them; what is less than a millisecond is dropped."""
    return int(seconds * 1000)


def ceil_milliseconds(seconds: float) -> int:
    """The same, never less than so many seconds: for what must not be early."""
    return math.ceil(seconds * 1000)
