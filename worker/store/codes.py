"""The codes that scripts answer with. The scripts get their names from here."""

from enum import IntEnum


class EnqueueResult(IntEnum):
    """What became of a new job."""

    CREATED = 1
    SAME = 2
    CONFLICT = 3
    OVER_QUOTA = 4  # its tenant may not have it now


class Recorded(IntEnum):
    """What became of an outcome."""

    WRITTEN = 1
    CANCEL_PENDING = 2  # a cancel that waits for a submit's answer
    REFUSED = 0  # the fence is stale, or the job has ended
    UNKNOWN = -1  # purged
    TAKEN = -2  # another job of the provider has the external id
