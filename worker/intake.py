"""How producers' messages become jobs: taken from their queue under a lease, decoded by kombu, recorded in one batch.

Celery's consumer can lose what it pops from Redis, so it does not consume this queue; here a message is gone only when
its job is recorded. On a broker with real acknowledgements `tasks.submit` is an ordinary task that calls `accept`.
"""

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kombu.message import Message
from kombu.transport.virtual.base import Base64
from kombu.utils.json import loads

from worker.accept import Acceptance
from worker.errors import Conflict, RequestError
from worker.events import JobEvents
from worker.jobs import JOB_ID_PATTERN
from worker.store.inbox import Inbox, Taken
from worker.store.lanes import Enqueued, Lanes, NewJob

log = logging.getLogger(__name__)

TASK = "tasks.submit"
"""The wire name that producers send: version 1 of the contract."""

PRIORITY_SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and a priority, for each priority but the first."""

PRIORITIES = (3, 6, 9)


class Sent(NamedTuple):
    """A producer's message, decoded. `countdown` is seconds."""

    job_id: str
    request: Any
    countdown: float = 0.0


class Unusable(Exception):
    """The message names no job: it is put aside for a person."""


class Intake:
    """Takes messages in for one process.

    Args:
        lanes: where jobs are recorded.
        inbox: the producers' queue.
        acceptance: the checks.
        events: told of each new job.
        queue: name of the producers' queue.
        most: messages taken at once.
    """

    def __init__(
        self, lanes: Lanes, inbox: Inbox, acceptance: Acceptance, events: JobEvents, *, queue: str, most: int
    ) -> None:
        self._lanes = lanes
        self._inbox = inbox
        self._acceptance = acceptance
        self._events = events
        self._lists = [queue, *(f"{queue}{PRIORITY_SEPARATOR}{step}" for step in PRIORITIES)]
        self._most = most

    async def take(self) -> int:
        """Turn waiting messages into jobs; how many messages there were."""
        taken = await self._inbox.take(self._lists, self._most)
        jobs: list[NewJob] = []
        for message in taken:
            try:
                sent = decode(message.body)
            except Unusable as error:
                log.warning("message-refused", extra={"reason": str(error)})
                await self._inbox.park(message, str(error))
                continue
            jobs.append(self._job(sent, message))
        await self._record(jobs)
        return len(taken)

    async def accept(self, sent: Sent) -> str:
        """Record one job from a broker with real acknowledgements; the id of the job that stands for it."""
        job = self._job(sent, Taken("", b""))
        return (await self._record([job]))[0]

    def _job(self, sent: Sent, message: Taken) -> NewJob:
        try:
            request = self._acceptance.request(sent.request)
            job = self._acceptance.job(sent.job_id, request, message=message.name, countdown=sent.countdown)
        except RequestError as error:
            return self._acceptance.refused(sent.job_id, sent.request, error, message=message.name)
        self._events.received(sent.job_id, request.provider, request.operation, request.params)
        return job

    async def _record(self, jobs: Sequence[NewJob]) -> list[str]:
        answers = await self._lanes.enqueue(jobs) if jobs else []
        conflicts = [
            self._refused_key(job, other)
            for job, (code, other) in zip(jobs, answers, strict=True)
            if code is Enqueued.CONFLICT and other != job.id
        ]
        if conflicts:
            await self._lanes.enqueue(conflicts)
        return [job_id for _, job_id in answers]

    def _refused_key(self, job: NewJob, other: str) -> NewJob:
        error = Conflict(f"idempotency key {job.key!r} belongs to job {other}, which asks for something else")
        asked = {"provider": job.provider, "operation": job.operation}
        return self._acceptance.refused(job.id, asked, error, message=job.message)


def decode(body: bytes) -> Sent:
    """Read a message as Celery's producers write it (protocol 1 and 2). Raises Unusable."""
    try:
        envelope = loads(body)
        message = Message(
            body=Base64().decode(envelope["body"]),
            content_type=envelope.get("content-type"),
            content_encoding=envelope.get("content-encoding"),
            headers=envelope.get("headers") or {},
            properties=envelope.get("properties") or {},
            accept=["json"],
        )
        content = message.decode()
    except Exception as error:
        raise Unusable(f"not a Celery message in JSON: {type(error).__name__}: {error}") from error
    return _sent(message.headers, content)


def _sent(headers: dict[str, Any], content: Any) -> Sent:
    if "task" in headers and isinstance(content, list | tuple) and len(content) > 1:
        task, job_id, args, kwargs, eta = headers["task"], headers.get("id"), content[0], content[1], headers.get("eta")
    elif isinstance(content, dict) and "task" in content:
        task, job_id, eta = content["task"], content.get("id"), content.get("eta")
        args, kwargs = content.get("args") or [], content.get("kwargs") or {}
    else:
        raise Unusable("a message without a task")
    if task != TASK:
        raise Unusable(f"task {task!r}: this queue takes {TASK} only")
    if not isinstance(job_id, str) or not re.match(JOB_ID_PATTERN, job_id):
        raise Unusable(f"task id {str(job_id)[:200]!r} is no job id: it must match {JOB_ID_PATTERN}")
    return Sent(job_id, _request(args, kwargs), _countdown(eta))


def _request(args: Any, kwargs: Any) -> Any:
    """The request is the kwargs, or a single positional dict; anything else is refused under the job's id."""
    if args and not kwargs and len(args) == 1:
        return args[0]
    return kwargs if not args else {"args": args, **kwargs}


def _countdown(eta: Any) -> float:
    try:
        due = datetime.fromisoformat(eta)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, ((due if due.tzinfo else due.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
