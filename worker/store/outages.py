"""Which of Redis's errors are an outage, and which refuse for good; and the two log lines of each outage.

Only what no later try could write is refused for good. Everything else is an outage, an operator's mistake too: what
was to be written is kept and tried again.
"""

import logging
import re
import threading
import time

from redis import exceptions

from outwait.worker.model.errors import StoreRefused, StoreUnavailable
from outwait.worker.model.store_outages import StoreOutage

log = logging.getLogger(__name__)


class TooFewCopies(exceptions.RedisError):
    """A write is done, and does not stand on as many servers or disks as the settings ask for."""


_CODES = {
    "LOADING": StoreOutage.LOADING,
    "NOAUTH": StoreOutage.LOGIN,
    "WRONGPASS": StoreOutage.LOGIN,
    "NOPERM": StoreOutage.PERMISSION,
    "BUSY": StoreOutage.BUSY,
    "MASTERDOWN": StoreOutage.MASTER_DOWN,
    "CLUSTERDOWN": StoreOutage.CLUSTER,
    "TRYAGAIN": StoreOutage.CLUSTER,
    "MOVED": StoreOutage.CLUSTER,
    "ASK": StoreOutage.CLUSTER,
    "CROSSSLOT": StoreOutage.CLUSTER,
    "READONLY": StoreOutage.READ_ONLY,
    "OOM": StoreOutage.OUT_OF_MEMORY,
    "NOREPLICAS": StoreOutage.NO_REPLICAS,
    "MISCONF": StoreOutage.DISK,
}
"""The word that an error begins with. https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors"""

_CLASSES: dict[type[Exception], StoreOutage] = {
    # redis-py takes the word away from the errors that it knows. The first that fits counts.
    exceptions.BusyLoadingError: StoreOutage.LOADING,
    exceptions.AuthenticationError: StoreOutage.LOGIN,
    exceptions.ConnectionError: StoreOutage.UNREACHABLE,
    exceptions.TimeoutError: StoreOutage.UNREACHABLE,
    exceptions.NoPermissionError: StoreOutage.PERMISSION,
    exceptions.MasterDownError: StoreOutage.MASTER_DOWN,
    exceptions.ClusterDownError: StoreOutage.CLUSTER,
    exceptions.TryAgainError: StoreOutage.CLUSTER,
    exceptions.ClusterCrossSlotError: StoreOutage.CLUSTER,
    exceptions.AskError: StoreOutage.CLUSTER,
    exceptions.ReadOnlyError: StoreOutage.READ_ONLY,
    exceptions.OutOfMemoryError: StoreOutage.OUT_OF_MEMORY,
    TooFewCopies: StoreOutage.TOO_FEW_COPIES,
}

# In a script Redis 6.2 puts the error of a command behind its own words: "ERR Error running script (call to f_…):
# @user_script: 7: @user_script: 7: -READONLY You can't write …". Redis 7 gives the command's own error.
_WORD = re.compile(rf"(?:^|[-\s])({'|'.join(_CODES)}) ")

_TLS = "[SSL"
"""What Python's errors of TLS begin with; redis-py keeps their text only."""

_ACL = re.compile(r"ACL failure|no permission|can't (?:run|access)", re.IGNORECASE)
"""What Redis says in a script, where NOPERM is missing."""

_KILLED = re.compile(r"script killed", re.IGNORECASE)
"""Somebody ended our script, as Redis's advice about a busy one says."""

_FOR_GOOD = re.compile(
    r"WRONGTYPE "  # a key that is none of ours
    r"|user_script"  # an error of a script that no code above explains: the same data fails again
    r"|exceeds maximum allowed size"  # of a string: proto-max-bulk-len
    r"|invalid (?:multi)?bulk length"
    r"|too big (?:inline|bulk|mbulk)"
    r"|value is not an integer|not a valid float"
)


def outage_of(error: Exception) -> StoreOutage | None:
    """The outage that an error of redis-py shows; None if Redis refuses for good."""
    if isinstance(error, exceptions.DataError):  # redis-py cannot send it
        return None
    text = str(error)
    for kind, outage in _CLASSES.items():
        if isinstance(error, kind):
            return StoreOutage.TLS if outage is StoreOutage.UNREACHABLE and _TLS in text else outage
    if word := _WORD.search(text):
        return _CODES[word[1]]
    if _ACL.search(text):
        return StoreOutage.PERMISSION
    if _FOR_GOOD.search(text) and not _KILLED.search(text):
        return None
    return StoreOutage.OTHER


def translate(error: Exception, where: str | None) -> StoreUnavailable | StoreRefused:
    """Our error for one of redis-py's. `where` is the host of the store."""
    outage = outage_of(error)
    if outage is None:
        return StoreRefused(f"Redis at {where} can never do this: {error}")
    return StoreUnavailable(f"Redis at {where} {outage.summary}: {error}", outage)


class OutageLog:
    """Writes one line when an outage of a store begins and one when it is over, in a process, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._outage = StoreOutage.UNREACHABLE

    @property
    def open(self) -> bool:
        """Whether the last word about an outage was that it began."""
        return self._since is not None

    def down(self, error: StoreUnavailable) -> None:
        """A call has met an outage."""
        with self._lock:
            is_first, self._outage = self._since is None, error.outage
            self._since = self._since or time.monotonic()
        if is_first:
            extra = {"outage": error.outage.value, "error": str(error), "advice": error.outage.advice}
            log.error("store-unavailable", extra=extra)

    def up(self, began: float, *, wrote: bool = False) -> None:
        """A call that began then (monotonic) has worked. Only one that wrote says that Redis writes again."""
        since = self._since
        if since is None or began < since or (self._outage.still_answers and not wrote):
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            log.warning("store-back", extra={"seconds": round(time.monotonic() - since, 1)})


_logs: dict[str, OutageLog] = {}


def log_of(url: str) -> OutageLog:
    """The log of the outages of one store: the same for all connections of this process."""
    return _logs.setdefault(url, OutageLog())
