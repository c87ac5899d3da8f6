"""Shows a job in Celery's own tools as one long task: sends task events under the job's id.

Flower and `celery events` then have one row for each job: sent, then polling (our own state), then succeeded or failed.
Each event carries the whole row, so that a restarted Flower can show the job after any of them. A thread sends the
events in groups. No step waits for them, and a lost event does no harm.
"""

import logging
import threading
import time
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from celery import Celery

from outwait.worker.model.jobs import Claim, Job, JobState
from outwait.worker.net.redaction import redact_bytes, shown

log = logging.getLogger(__name__)

FLUSH = 0.2
"""Seconds for which events are collected into one message."""

BACKLOG = 10_000
"""Maximum number of events in the queue; during an outage of the broker further ones are dropped."""

SHOWN = 300
"""Characters of a job's parameters or result in an event."""

POLLS_SHOWN = 20
"""Polls that each process shows in a second. They let a restarted Flower find the waiting jobs."""


class Row(NamedTuple):
    """The content of every event of a job. Times are seconds since 1970; 0 means none."""

    job_id: str
    provider: str
    operation: str
    params: Mapping[str, Any]
    received: float = 0
    started: float = 0


class FlowerEvents(threading.Thread):
    """Sends the events of one process's jobs.

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
        self._queue: SimpleQueue[list[tuple[str, Row, dict[str, Any]]] | None] = SimpleQueue()
        self._second = 0
        self._polls = 0
        self._down = False

    def accepted(self, job_id: str, provider: str, operation: str, params: Mapping[str, Any]) -> None:
        """The job waits to be submitted. (The event is `sent`, because `received` and `started` must come in pairs.)"""
        self._put(Row(job_id, provider, operation, params), {"task-sent": {}})

    def submitted(self, claim: Claim, params: Mapping[str, Any]) -> None:
        """The provider has the job. It runs from now on and is polled."""
        row = Row(claim.work_id, claim.provider, claim.operation, params, claim.created_ms / 1000, time.time())
        self._put(row, {"task-received": {}, "task-started": {}, "task-polling": {}})

    def polls_shown(self) -> bool:
        """Whether another poll may be shown in this second."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._polls = second, 0
        self._polls += 1
        return self._enabled and self._polls <= POLLS_SHOWN

    def polled(self, claim: Claim, params: Mapping[str, Any]) -> None:
        """A poll found the job unfinished."""
        row = Row(
            claim.work_id, claim.provider, claim.operation, params, claim.created_ms / 1000, claim.submitted_ms / 1000
        )
        self._put(row, {"task-polling": {}})

    def ended(self, job: Job, params: Mapping[str, Any], result: bytes) -> None:
        """The job has ended. `result` is JSON."""
        ended = job.ended or job.created
        row = Row(job.id, job.provider, job.operation, params, job.created, job.submitted or 0)
        fields: dict[str, Any] = {"runtime": round(ended - (job.submitted or job.created), 3)}
        match job.state:
            case JobState.SUCCEEDED:
                text = redact_bytes(result, SHOWN * 4)[:SHOWN]
                self._put(row, {"task-succeeded": fields | {"succeeded": ended, "result": text}})
            case JobState.CANCELLED:
                # Our own state: in Celery's order REVOKED comes before POLLING, so the row would not change.
                self._put(row, {"task-cancelled": fields | {"revoked": ended}})
            case _:
                self._put(row, {"task-failed": fields | {"failed": ended, "exception": repr(job.exception)}})

    def stop(self) -> None:
        """Send the remaining events and end the thread."""
        if self._enabled:
            self._queue.put(None)
            self.join(timeout=5)

    def start(self) -> None:
        """Start sending, if enabled."""
        if self._enabled:
            super().start()

    def run(self) -> None:
        """Send events in groups until stopped."""
        going = True
        while going:
            going, group = self._gather()
            try:
                self._send(group, last=not going)
                self._down = False
            except Exception as error:  # noqa: BLE001 - each broker raises its own errors, and none may end this thread
                if not self._down:
                    log.warning("job-events-lost", extra={"events": len(group), "error": str(error)})
                self._down = True

    def _put(self, row: Row, events: Mapping[str, dict[str, Any]]) -> None:
        if self._enabled and self._queue.qsize() < BACKLOG:
            self._queue.put([(kind, row, fields) for kind, fields in events.items()])

    def _gather(self) -> tuple[bool, list[tuple[str, dict[str, Any]]]]:
        item = self._queue.get()
        group: list[tuple[str, dict[str, Any]]] = []
        end = time.monotonic() + FLUSH
        while item is not None:
            shared = _fields(item[0][1])
            group += [(kind, shared | fields) for kind, _, fields in item]
            try:
                item = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return True, group
        return False, group

    def _send(self, group: list[tuple[str, dict[str, Any]]], *, last: bool) -> None:
        with self._app.amqp.producer_pool.acquire(block=True) as producer:
            dispatcher = self._app.events.Dispatcher(
                producer.connection,
                hostname=self._hostname,
                channel=producer.channel,
                buffer_while_offline=False,  # it would hold the events back and later drop them
                buffer_group=frozenset({"task"}),
                buffer_limit=len(group) + 1,
            )
            for kind, fields in group:
                dispatcher.send(kind, **fields)
            dispatcher.flush()
            if last:
                # Events sent after the worker's own offline event would show it online again.
                dispatcher.send("worker-offline")
            dispatcher.close()


def _fields(row: Row) -> dict[str, Any]:
    """The fields of an event. Each event has name and kwargs: otherwise Flower could show a row without a name."""
    request = {"provider": row.provider, "operation": row.operation, "params": row.params}
    kwargs = shown(request, SHOWN + 1)
    if len(kwargs) > SHOWN:  # only the params are cut, so that Flower's search can still read the dict
        kwargs = repr(request | {"params": shown(row.params, SHOWN)})
    times = {name: at for name, at in (("received", row.received), ("started", row.started)) if at}
    name = f"outwait.{row.provider}.{row.operation}"
    return {"uuid": row.job_id, "name": name, "args": "()", "kwargs": kwargs, "retries": 0, **times}
