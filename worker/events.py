"""Shows a job to Celery's own tools as one long task: hand-sent task events under the job's id, and its result.

Flower and `celery events` then have one row a job: received, started, polling (a state of ours), succeeded or failed.
Events are sent from a thread of their own, in groups: nobody waits for them, and losing one loses nothing.
"""

import logging
import re
import threading
import time
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any

from celery import Celery, states
from kombu.exceptions import OperationalError

from worker.errors import JobCancelled, JobExpired, JobFailed
from worker.jobs import Job, JobState

log = logging.getLogger(__name__)

FLUSH = 0.2
"""Seconds in which events are gathered into one message."""

SHOWN = 300
"""Characters of a job's parameters, or of its result, that events carry."""

_SECRET = re.compile(r"token|secret|password|api_?key|authorization", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s'\"]*")

Event = tuple[str, dict[str, Any]]


class JobEvents(threading.Thread):
    """Job events of one process.

    Args:
        app: the Celery app whose broker carries the events.
        hostname: the worker's node name; without it Flower would show a worker that does not exist.
        enabled: False sends nothing.
    """

    def __init__(self, app: Celery, hostname: str, *, enabled: bool) -> None:
        super().__init__(name="outwait-events", daemon=True)
        self._app = app
        self._hostname = hostname
        self._enabled = enabled
        self._queue: SimpleQueue[Event | None] = SimpleQueue()

    def received(self, job_id: str, provider: str, operation: str, params: Mapping[str, Any]) -> None:
        """The job was accepted."""
        self._put("task-received", job_id, provider, operation, params)

    def submitted(self, job_id: str, provider: str, operation: str, params: Mapping[str, Any]) -> None:
        """The provider has the job: it runs from now, and is being polled."""
        self._put("task-started", job_id, provider, operation, params)
        self._put("task-polling", job_id, provider, operation, params)

    def ended(self, job: Job, params: Mapping[str, Any], result: Any) -> None:
        """The job's outcome is decided."""
        began = job.submitted or job.created
        runtime = round((job.ended or began) - began, 3)
        if job.state is JobState.SUCCEEDED:
            shown = repr(result)[:SHOWN]
            self._put("task-succeeded", job.id, job.provider, job.operation, params, result=shown, runtime=runtime)
        elif job.state is JobState.CANCELLED:
            self._put("task-revoked", job.id, job.provider, job.operation, params, terminated=False, expired=False)
        else:
            self._put("task-failed", job.id, job.provider, job.operation, params, exception=repr(as_exception(job)))

    def stop(self) -> None:
        """Send what is left and end the thread."""
        if self._enabled:
            self._queue.put(None)
            self.join(timeout=5)

    def start(self) -> None:
        """Start sending, if enabled."""
        if self._enabled:
            super().start()

    def run(self) -> None:
        """Send events in groups until stopped; an outage of the broker loses them, and that is all it does."""
        going = True
        while going:
            going, group = self._gather()
            try:
                self._send(group)
            except (OperationalError, OSError, ConnectionError) as error:
                log.warning("job-events-lost", extra={"events": len(group), "error": str(error)})

    def _put(
        self, kind: str, job_id: str, provider: str, operation: str, params: Mapping[str, Any], **fields: Any
    ) -> None:
        if self._enabled:
            kwargs = repr({"provider": provider, "operation": operation, "params": shown(params)})
            row = {"uuid": job_id, "name": f"outwait.{provider}.{operation}", "args": "()", "kwargs": kwargs}
            self._queue.put((kind, {**row, "retries": 0, "timestamp": time.time(), **fields}))

    def _gather(self) -> tuple[bool, list[Event]]:
        first = self._queue.get()
        group = []
        end = time.monotonic() + FLUSH
        item = first
        while item is not None:
            group.append(item)
            try:
                item = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return True, group
        return False, group

    def _send(self, group: list[Event]) -> None:
        with self._app.connection_for_write() as connection:
            dispatcher = self._app.events.Dispatcher(
                connection, hostname=self._hostname, buffer_group=frozenset({"task"}), buffer_limit=len(group) + 1
            )
            for kind, fields in group:
                dispatcher.send(kind, **fields)
            dispatcher.flush()
            dispatcher.close()


def keep_result(app: Celery, job_id: str, job: Job, result: Any) -> None:
    """Store what `AsyncResult(job_id).get()` returns or raises in the producer."""
    if job.state is JobState.SUCCEEDED:
        app.backend.store_result(job_id, result, states.SUCCESS)
    else:
        state = states.REVOKED if job.state is JobState.CANCELLED else states.FAILURE
        app.backend.store_result(job_id, as_exception(job), state)


def as_exception(job: Job) -> Exception:
    """What a job's producer gets raised."""
    message = f"{job.error.code}: {job.error.message}" if job.error else f"the job is {job.state}"
    match job.state:
        case JobState.EXPIRED:
            return JobExpired(message)
        case JobState.CANCELLED:
            return JobCancelled(message)
        case _:
            return JobFailed(message)


def shown(params: Mapping[str, Any]) -> str:
    """Parameters as events and logs may show them: shortened, without secrets and without the queries of URLs."""
    safe = {name: "***" if _SECRET.search(name) else value for name, value in params.items()}
    return _QUERY.sub("?…", repr(safe)[: SHOWN * 4])[:SHOWN]
