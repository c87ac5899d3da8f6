"""Which streams and queues targets may name: those that the operator lists, and never Celery's or our own. Pure."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from outwait.config.groups import Route
from outwait.config.reserved import CELERY_QUEUE, reserved
from outwait.config.settings import Settings
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.targets import CeleryTarget, StreamTarget, Target, parse


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """What the settings of one process allow.

    Args:
        streams: patterns of keys.
        queues: patterns of names.
        routed: the targets of the operator's routes, which are allowed as they are written there.
        namespace: ours.
        intake_queue: the queue to which producers send.
        shared: whether queues are keys of the same Redis as streams.
    """

    streams: Sequence[str]
    queues: Sequence[str]
    routed: frozenset[Target]
    namespace: str
    intake_queue: str
    shared: bool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What these settings allow."""
        return cls(
            streams=settings.handlers.streams,
            queues=settings.handlers.queues,
            routed=frozenset(_targets(settings.handlers.routes)),
            namespace=settings.namespace,
            intake_queue=settings.intake.queue,
            shared=settings.broker_is_redis,
        )

    def refusal(self, target: Target) -> str:
        """Why no delivery may go to this target, or ""."""
        match target:
            case StreamTarget(key):
                return self._stream(key, routed=target in self.routed)
            case CeleryTarget(_, queue):
                return self._queue(queue, routed=target in self.routed)
            case _:
                return ""

    def _stream(self, key: str, *, routed: bool) -> str:
        if key.endswith(CELERY_QUEUE) or reserved(key, self.namespace, self.intake_queue):
            return f"stream {key} is never allowed: the key belongs to Celery or to Outwait; use another one"
        if self.shared and _matches(key, self.queues):
            return f"stream {key} is not allowed: OUTWAIT_HANDLERS__QUEUES lists it as a queue; use another key"
        if routed or _matches(key, self.streams):
            return ""
        return _not_listed(f"stream {key}", "OUTWAIT_HANDLERS__STREAMS", self.streams)

    def _queue(self, queue: str, *, routed: bool) -> str:
        if reserved(queue, self.namespace, self.intake_queue):
            return f"queue {queue} is never allowed: it belongs to Celery or to Outwait; use another one"
        listed = queue in self.queues if queue == CELERY_QUEUE else _matches(queue, self.queues)
        if routed or listed:
            return ""
        return _not_listed(f"queue {queue}", "OUTWAIT_HANDLERS__QUEUES", self.queues)


def _targets(routes: Sequence[Route]) -> Iterator[Target]:
    for route in routes:
        for target in route.targets:
            with suppress(InvalidRequest):  # such a route stops the worker at its start
                yield parse(target)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _not_listed(what: str, setting: str, patterns: Sequence[str]) -> str:
    allowed = ", ".join(patterns)[:200] or "none"
    return f"{what} is not allowed; the operator can add it to {setting} (now: {allowed})"
