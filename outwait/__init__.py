"""Outwait: jobs on slow, asynchronous AI APIs, submitted once and waited for however long they take.

What other code imports stands in `__all__`. Each name is imported when it is first asked for, so that `import outwait`
costs nothing and a room imports only what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outwait.tasks.handlers.envelope import Envelope
    from outwait.tasks.handlers.functions import handler
    from outwait.worker.model.errors import (
        DeliveryFailed,
        DeliveryRefused,
        JobCancelled,
        JobEnded,
        JobExpired,
        JobFailed,
    )

__all__ = [
    "DeliveryFailed",
    "DeliveryRefused",
    "Envelope",
    "JobCancelled",
    "JobEnded",
    "JobExpired",
    "JobFailed",
    "handler",
]

_HOMES = {
    "Envelope": "outwait.tasks.handlers.envelope",
    "handler": "outwait.tasks.handlers.functions",
    **dict.fromkeys(
        ("DeliveryFailed", "DeliveryRefused", "JobCancelled", "JobEnded", "JobExpired", "JobFailed"),
        "outwait.worker.model.errors",
    ),
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'outwait' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
