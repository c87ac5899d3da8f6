"""Long polls and streams of events: how many requests of one tenant may wait for jobs at the same time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

from outwait.worker.model.api_keys import ApiKey

RETRY_AFTER = 5
"""Seconds after which a refused request may come again."""


class Waiting:
    """The requests that wait in one process. One tenant can never take all connections of the others.

    Args:
        limit: for the keys of one tenant together, and for each key of all tenants.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: Counter[tuple[str | None, str]] = Counter()

    def check(self, key: ApiKey) -> None:
        """Refuse a request where too many wait already. Raises HTTPException."""
        if self._waiting[_owner(key)] >= self._limit:
            text = f"{self._limit} requests of this tenant wait for jobs already: half of OUTWAIT_WEB__CONNECTIONS"
            raise HTTPException(429, text, {"Retry-After": str(RETRY_AFTER)})

    @contextmanager
    def place(self, key: ApiKey) -> Iterator[None]:
        """Count a request while it waits."""
        owner = _owner(key)
        self._waiting[owner] += 1
        try:
            yield
        finally:
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner]


def _owner(key: ApiKey) -> tuple[str | None, str]:
    return (key.tenant, "" if key.tenant else key.id)
