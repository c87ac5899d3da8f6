"""Names of queues and keys that belong to Celery, kombu, RabbitMQ or Outwait. Nobody else may write there.

Several of these keys are absent while they are empty. A key of another type can then take their place.

Sources: `transport/redis.py` and `pidbox.py` of kombu 5.7, `backends/base.py` and `events/event.py` of Celery 5.7;
`amq.` is RabbitMQ's.
"""

import re

CELERY_QUEUE = "celery"
"""The queue that a Celery app reads by default."""

# A global key prefix may precede each name of Celery's, and may end with any character.
_FOREIGN = re.compile(
    r".*(?:unacked(?:_index|_mutex)?|_kombu\..*|pidbox|celeryev(?:[./].*)?|celery-task(?:set)?-meta-.*|chord-unlock-.*)"
    r"|amq\..*"
)


_PATTERN = re.compile(r"(?!.*://)[A-Za-z0-9_.:@/*?!\[\]-]{1,200}")


def name_pattern(value: str) -> str:
    """A pattern of names, as the operator lists it. Raises ValueError."""
    if not _PATTERN.fullmatch(value):
        raise ValueError("must be names or patterns (results, crm-*), without stream:// or celery://")
    return value


def foreign(name: str) -> bool:
    """Whether a queue or key belongs to Celery, kombu or RabbitMQ. Celery's default queue is not among them."""
    return _FOREIGN.fullmatch(name) is not None


def reserved(name: str, namespace: str, intake_queue: str) -> bool:
    """Whether a queue or key is foreign, or ours: in our namespace, or the queue to which producers send."""
    ours = name in {namespace, intake_queue} or name.startswith(f"{namespace}.")
    return ours or foreign(name)
