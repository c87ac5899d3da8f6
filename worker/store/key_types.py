"""The keys that all workers need, and the Redis type of each: of the store, and of what kombu keeps for our queues."""

from outwait.config.reserved import CELERY_QUEUE
from outwait.config.settings import Settings
from outwait.worker.store.inbox import lists_of
from outwait.worker.store.keys import Keys

_STORE = {
    "hash": ("ACCESS", "ACCESS_LIMITED", "ENDPOINTS", "IN_MESSAGES", "IN_TAKES", "STATS", "USED"),
    "list": ("IN_REFUSED", "ORPHANS", "WEBHOOKS_UNKNOWN"),
    "set": ("PROVIDERS", "TRAILS"),
    "string": ("CATCH_UP", "COPIED", "IN_SEQ", "PROBE", "WEBHOOKS_SECRET"),
    "zset": (
        "BACKLOGS",
        "BACKLOG_ALL",
        "CLOSED",
        "DEAD",
        "DEADLINES",
        "HANDLERS",
        "HANDLERS_EARLY",
        "IN_LEASED",
        "LANES",
    ),
}
"""Keys of the store that are not of a single job, lane or provider, by type."""

_EXCHANGES = ("celery.pidbox", "celeryev", "reply.celery.pidbox")
"""Of Celery's remote control and events."""


def needed_types(settings: Settings) -> dict[str, str]:
    """Each key and its type. Most keys are absent while they are empty."""
    keys = Keys(settings.namespace)
    store = {keys(name): kind for kind, names in _STORE.items() for name in names}
    return store | (_broker_types(settings) if settings.broker_is_redis else {})


def _broker_types(settings: Settings) -> dict[str, str]:
    queues = [settings.intake.queue, *settings.step_queues.values()]
    bindings = [f"_kombu.{kind}.{name}" for kind in ("binding", "binding_permanent") for name in (*queues, *_EXCHANGES)]
    return {
        **dict.fromkeys([name for queue in queues for name in lists_of(queue)], "list"),
        **dict.fromkeys(bindings, "set"),
        "_kombu.binding_deadlines": "zset",
        CELERY_QUEUE: "list",
        f"{settings.namespace}.unacked": "hash",
        f"{settings.namespace}.unacked_index": "zset",
        f"{settings.namespace}.unacked_mutex": "string",
    }
