"""Turns producers' messages into jobs: takes them from their queue under a lease, decodes them and records them.

Celery's consumer can lose what it pops from Redis, so it does not consume this queue. Here a message is deleted only
when its job is recorded. On a broker with real acknowledgements, `tasks.submit` is an ordinary task and calls `accept`.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kombu import compression as compressions
from kombu.message import Message
from kombu.transport.virtual.base import Base64
from kombu.utils.json import loads

from outwait.config.groups import IntakeSettings
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.celery.results import CeleryResults
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.model.errors import Conflict, InvalidRequest, RequestError
from outwait.worker.model.jobs import JOB_ID_PATTERN
from outwait.worker.net.redaction import redact
from outwait.worker.store.codes import EnqueueResult
from outwait.worker.store.inbox import Inbox, Taken, lists_of
from outwait.worker.store.lanes import Lanes, NewJob

log = logging.getLogger(__name__)

TASK = "tasks.submit"
"""The wire name of the task that producers send: version 1 of the contract."""

PARKED_SHOWN = 4000
"""Bytes of a parked message that are kept for a person to read."""

OUTAGE_PAUSE = 1.0
"""Seconds between two tries while Redis does not answer."""

JSON = "application/json"
"""The only content type that is read: a pickle could run code here."""

_AFTER = ("callbacks", "errbacks", "chain", "chord")


class Sent(NamedTuple):
    """A producer's message, decoded.

    `countdown` is in seconds; `refusal` says why the message is refused, or is empty; `trace` is its trace context;
    `expires_in` is the time in seconds by which the job must be due, if the message has an `expires`.
    """

    job_id: str
    request: Any
    countdown: float = 0.0
    refusal: str = ""
    trace: str = ""
    expires_in: float | None = None


class Unusable(Exception):
    """The message has no valid job id, so its error cannot be stored as a job. It is parked for a person."""


class Ready(NamedTuple):
    """A job to record, and the parameters that its row in Flower shows."""

    job: NewJob
    params: Mapping[str, Any]


class Intake:
    """Takes the messages of one process.

    Args:
        lanes: records the jobs.
        inbox: the producers' queue.
        acceptance: checks the requests.
        events: shows each new job in Flower.
        results: answers a repeated request for a job that has ended; None stores no results.
        settings: the name of the producers' queue, and how many messages are taken at once.
    """

    def __init__(
        self,
        lanes: Lanes,
        inbox: Inbox,
        acceptance: Acceptance,
        events: FlowerEvents,
        results: CeleryResults | None,
        settings: IntakeSettings,
    ) -> None:
        self._lanes = lanes
        self._inbox = inbox
        self._acceptance = acceptance
        self._events = events
        self._results = results
        self._lists = lists_of(settings.queue)
        self._batch = settings.batch

    async def take(self) -> int:
        """Turn one batch of waiting messages into jobs. Returns the number of messages."""
        taken = await self._inbox.take(self._lists, self._batch)
        ready: list[Ready] = []
        for message in taken:
            try:
                sent = decode(message.body, message.at)
            except Unusable as error:
                await self.park(message, str(error))
                continue
            ready.append(self._ready(sent, message.name))
        await self._record(ready)
        return len(taken)

    async def accept(self, sent: Sent) -> None:
        """Record one job from a broker with real acknowledgements. Raises StoreUnavailable."""
        await self._record([self._ready(sent, "")])

    async def now(self) -> float:
        """Seconds since 1970 by Redis's clock, which all workers share. Raises StoreUnavailable."""
        return await self._inbox.now()

    async def park(self, message: Taken, reason: str) -> None:
        """Store a message without a valid job id where a person can read it."""
        log.warning("message-refused", extra={"reason": reason})
        shown = redact(message.body[:PARKED_SHOWN].decode(errors="replace"))
        await self._inbox.park(message.name, redact(reason), shown)

    def _ready(self, sent: Sent, message: str) -> Ready:
        try:
            if sent.refusal:
                raise InvalidRequest(sent.refusal)
            request = self._acceptance.request(sent.request)
            job = self._acceptance.job(
                sent.job_id, request, message=message, countdown=sent.countdown, trace=sent.trace
            )
            if sent.expires_in is not None and sent.expires_in * 1000 <= job.countdown_ms:
                raise InvalidRequest(
                    f"expires: the message expires in {sent.expires_in:.0f} s, but its job is only due in "
                    f"{job.countdown_ms / 1000:.0f} s (countdown or eta), so it would never be submitted"
                )
            return Ready(job, request.params)
        except RequestError as error:
            return self._refused(sent, error, message)
        except Exception as error:  # a message that cannot be stored must not hold back the others
            log.exception("request-broken", extra={"job": sent.job_id})
            refusal = InvalidRequest(f"the request cannot be stored: {type(error).__name__}: {error}")
            return self._refused(sent, refusal, message)

    def _refused(self, sent: Sent, error: RequestError, message: str) -> Ready:
        try:
            return Ready(self._acceptance.refused(sent.job_id, sent.request, error, message=message), {})
        except (ValueError, OverflowError):  # for example lone surrogates, which JSON cannot represent
            error = InvalidRequest(ascii(str(error)))
            return Ready(self._acceptance.refused(sent.job_id, {}, error, message=message), {})

    async def _record(self, ready: Sequence[Ready]) -> None:
        repeated: list[tuple[str, str]] = []
        conflicts: list[Ready] = []
        answers = await self._lanes.enqueue([job for job, _ in ready]) if ready else []
        for (job, params), (code, other) in zip(ready, answers, strict=True):
            match code:
                case EnqueueResult.CREATED:
                    self._events.accepted(job.id, job.provider, job.operation, params)
                case EnqueueResult.SAME:
                    repeated.append((job.id, other))
                case EnqueueResult.CONFLICT if other != job.id:
                    conflicts.append(self._conflict(job, other))
                case EnqueueResult.CONFLICT:
                    log.warning("request-refused", extra={"job": job.id, "reason": "another request has this id"})
        if repeated and self._results:
            await self._results.keep_ended(repeated)
        if conflicts:
            await self._record(conflicts)

    def _conflict(self, job: NewJob, other: str) -> Ready:
        error = Conflict(f"the idempotency key {job.key!r} belongs to job {other}, whose request is different")
        fields = {"provider": job.provider, "operation": job.operation}
        return Ready(self._acceptance.refused(job.id, fields, error, message=job.message), {})


def decode(body: bytes, now: float) -> Sent:
    """Read a message as Celery's producers write it (protocols 1 and 2).

    Args:
        body: the message.
        now: the time by Redis's clock, in seconds since 1970.

    Raises:
        Unusable: it has no valid job id.
    """
    try:
        envelope = loads(body)
        headers = envelope.get("headers") or {}
        message = Message(
            body=Base64().decode(envelope["body"]),
            content_type=envelope.get("content-type"),
            content_encoding=envelope.get("content-encoding"),
            headers=headers,
            properties=envelope.get("properties") or {},
            accept={JSON},
        )
    except Exception as error:
        raise Unusable(f"this is not a Celery message: {type(error).__name__}: {error}") from error
    try:
        return _sent(headers, message.decode(), now)
    except Unusable:
        raise
    except Exception as error:  # noqa: BLE001 - each serializer and each compression raises its own errors
        if unreadable := _unreadable(headers.get("compression")):
            return Sent(_job_id(headers.get("id")), {}, refusal=unreadable)
        return Sent(_job_id(headers.get("id")), {}, refusal=f"the message must be JSON ({JSON}): {error}")


def _unreadable(compression: Any) -> str:
    """Why this compression cannot be undone here, or nothing."""
    known = sorted(compressions.encoders())
    if not compression or compression in known:
        return ""
    return f"compression: given {compression!r:.100}; workers here can read {', '.join(known)}"


def _sent(headers: Mapping[str, Any], content: Any, now: float) -> Sent:
    if "task" in headers and isinstance(content, list) and len(content) == 3:
        return read(headers, *content, now=now)
    if isinstance(content, dict) and "task" in content:  # protocol 1
        return read(content, content.get("args"), content.get("kwargs"), content, now=now)
    raise Unusable("the message names no task")


def read(fields: Mapping[str, Any], args: Any, kwargs: Any, embed: Any, *, now: float = 0.0) -> Sent:
    """Read the fields of a message.

    Args:
        fields: `task`, `id`, `eta`, `expires` and `traceparent`.
        args: the task's positional arguments.
        kwargs: the task's keyword arguments.
        embed: the tasks that should run after it (callbacks, chains).
        now: seconds since 1970 by Redis's clock, to compare with `eta` and `expires`; this machine's may be wrong.

    Raises:
        Unusable: its id is not a valid job id.
    """
    job_id, request = _job_id(fields.get("id")), _request(args, kwargs)
    try:
        if fields["task"] != TASK:
            raise ValueError(f"task: given {fields['task']!r:.100}; this queue accepts only {TASK}")
        _check_follow_ups(embed)
        countdown, expires_in = _countdown(fields.get("eta"), now), _expires_in(fields.get("expires"), now)
        return Sent(job_id, request, countdown, trace=str(fields.get("traceparent", "")), expires_in=expires_in)
    except ValueError as error:
        return Sent(job_id, request, refusal=str(error))


def _job_id(given: Any) -> str:
    if not isinstance(given, str) or not re.fullmatch(JOB_ID_PATTERN, given):
        raise Unusable(f"the task id {str(given)[:200]!r} is not a valid job id: it must match {JOB_ID_PATTERN}")
    return given


def _request(args: Any, kwargs: Any) -> Any:
    """The kwargs, or a single positional dict. Anything else is refused later, under the job's id."""
    if not args:
        return kwargs or {}
    if not kwargs and isinstance(args, list | tuple) and len(args) == 1:
        return args[0]
    return {**(kwargs if isinstance(kwargs, dict) else {}), "args": args}


def _check_follow_ups(embed: Any) -> None:
    """Raises ValueError for tasks that should run after it: jobs do not support them."""
    follow_ups = [name for name in _AFTER if isinstance(embed, dict) and embed.get(name)]
    if follow_ups:
        raise ValueError(
            f"{', '.join(follow_ups)}: not supported for jobs; use a target instead (celery://task?queue=q)"
        )


def _countdown(eta: Any, now: float) -> float:
    """Seconds until the job is due. Raises ValueError if `eta` is no time."""
    return max(0.0, _seconds_until("eta", eta, now)) if eta else 0.0


def _expires_in(expires: Any, now: float) -> float | None:
    """Seconds until the message expires, if it does. Raises ValueError if it has expired, or `expires` is no time."""
    left = _seconds_until("expires", expires, now) if expires else None
    if left is not None and left <= 0:
        raise ValueError(f"expires: the message expired at {expires}, before it was read")
    return left


def _seconds_until(name: str, given: Any, now: float) -> float:
    try:
        at = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: given {given!r:.100}; must be a time in ISO 8601") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
