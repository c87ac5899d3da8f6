"""The colours of states and events: a closed set of tones, each a class of the style sheet."""

from outwait.worker.model.jobs import DeliveryState, JobState
from outwait.worker.store.governors import Breaker

GOOD, BAD, WARN, LATE, ODD, INFO, QUIET = "good", "bad", "warn", "late", "odd", "info", "quiet"

_TONES: dict[str, str] = {
    JobState.QUEUED: INFO,
    JobState.WAITING: WARN,
    JobState.UNCERTAIN: ODD,
    JobState.SUCCEEDED: GOOD,
    JobState.FAILED: BAD,
    JobState.EXPIRED: LATE,
    JobState.CANCELLED: QUIET,
    DeliveryState.PENDING: WARN,
    DeliveryState.DELIVERED: GOOD,
    DeliveryState.DEAD: BAD,
    Breaker.OPEN: BAD,
    Breaker.PROBING: WARN,
    # Timeline events that are not states.
    "submitted": INFO,
    "adopted": INFO,
    "webhook": INFO,
    "replay": INFO,
    "resolved": ODD,
    "repolled": INFO,
    "held": ODD,
    "retry": LATE,
    "delivery-retry": LATE,
    "warning": LATE,
    "conflict": LATE,
    "cancel-asked": LATE,
    "refused": BAD,
}


def tone(word: str) -> str:
    """The tone of a state or an event; quiet if it is neither good nor bad."""
    return _TONES.get(word, QUIET)
