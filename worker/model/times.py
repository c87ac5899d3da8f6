"""Times: seconds everywhere, and whole milliseconds, under names in `_ms`, where the store's scripts count in them."""


def milliseconds(seconds: float) -> int:
    """So many seconds as the store's scripts count them; what is less than a millisecond is dropped."""
    return int(seconds * 1000)
