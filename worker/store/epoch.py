"""Which Redis a process talks to, and that another one, or an older state of it, has taken its place.

A Redis gives itself a new replication id whenever it becomes a master: when it starts, and when it is promoted. Its
data may then be older than what this process learnt before: what was not yet copied, or not on the disk, is gone.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Epoch:
    """The time of one Redis as the master, as a process sees it. `number` counts them; any thread may read it."""

    def __init__(self) -> None:
        self.number = 0
        self._lock = threading.Lock()
        self._replication_id = ""
        self._listeners: list[Callable[[], None]] = []

    def begins(self, replication_id: str, server: str) -> int:
        """A connection has reached this server; the number of its epoch."""
        with self._lock:
            is_new = self._replication_id not in ("", replication_id)
            self._replication_id = replication_id
            self.number += is_new
            number, listeners = self.number, list(self._listeners) if is_new else []
        if is_new:
            log.warning("store-changed", extra={"server": server, "epoch": number})
        for listener in listeners:
            listener()
        return number

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have something called, from any thread, whenever another epoch begins."""
        with self._lock:
            self._listeners.append(listener)


_epochs: dict[str, Epoch] = {}


def epoch_of(url: str) -> Epoch:
    """The epoch of one store: the same for all connections of this process."""
    return _epochs.setdefault(url, Epoch())
