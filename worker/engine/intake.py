"""How producers' messages become jobs: taken from their queue under a lease, decoded by kombu, recorded in one batch.

Celery's consumer can lose what it pops from Redis, so it does not consume this queue; here a message is gone only when
its job is recorded. On a broker with real acknowledgements `tasks.submit` is an ordinary task that calls `accept`.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

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

PARKED_SHOWN = 4000
"""Bytes of a message that can be no job that a person is shown."""
"""The wire name that producers send: version 1 of the contract."""

OUTAGE_PAUSE = 1.0
"""Seconds between two tries while Redis is away."""

JSON = "application/json"
"""The content type of a message that can be read; a pickle could run code here."""


_AFTER = ("callbacks", "errbacks", "chain", "chord")


class Sent(NamedTuple):
    """A producer's message, decoded.

    `countdown` is seconds; `refusal` is why it can be no job, if so; `trace` is the producer's trace context.
    """

    job_id: str
    request: Any
    countdown: float = 0.0
    refusal: str = ""
    trace: str = ""


class Unusable(Exception):
    """The message names no job: it is put aside for a person."""


class Ready(NamedTuple):
    """A job to record, and the parameters that its row shows."""

    job: NewJob
    params: Mapping[str, Any]


class Intake:
    """Takes messages in for one process.

    Args:
        lanes: where jobs are recorded.
        inbox: the producers' queue.
        acceptance: the checks.
        events: told of each new job.
        results: answers producers who ask again for a job that has ended; None keeps no results.
        own: the producers' queue, and how many messages are taken at once.
    """

    def __init__(
        self,
        lanes: Lanes,
        inbox: Inbox,
        acceptance: Acceptance,
        events: FlowerEvents,
        results: CeleryResults | None,
        own: IntakeSettings,
    ) -> None:
        self._lanes = lanes
        self._inbox = inbox
        self._acceptance = acceptance
        self._events = events
        self._results = results
        self._lists = lists_of(own.queue)
        self._most = own.batch

    async def take(self) -> int:
        """Turn waiting messages into jobs; how many messages there were."""
        taken = await self._inbox.take(self._lists, self._most)
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

    async def park(self, message: Taken, reason: str) -> None:
        """Put a message that names no job aside for a person."""
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
            return Ready(job, request.params)
        except RequestError as error:
            return self._refused(sent, error, message)
        except Exception as error:  # one message that cannot be stored must hold back no other
            log.exception("request-broken", extra={"job": sent.job_id})
            told = InvalidRequest(f"the request cannot be stored: {type(error).__name__}: {error}")
            return self._refused(sent, told, message)

    def _refused(self, sent: Sent, error: RequestError, message: str) -> Ready:
        try:
            return Ready(self._acceptance.refused(sent.job_id, sent.request, error, message=message), {})
        except (ValueError, OverflowError):  # lone surrogates, say, that no JSON text can have
            error = InvalidRequest(ascii(str(error)))
            return Ready(self._acceptance.refused(sent.job_id, {}, error, message=message), {})

    async def _record(self, ready: Sequence[Ready]) -> None:
        again: list[tuple[str, str]] = []
        conflicts: list[Ready] = []
        answers = await self._lanes.enqueue([job for job, _ in ready]) if ready else []
        for (job, params), (code, other) in zip(ready, answers, strict=True):
            match code:
                case EnqueueResult.CREATED:
                    self._events.accepted(job.id, job.provider, job.operation, params)
                case EnqueueResult.SAME:
                    again.append((job.id, other))
                case EnqueueResult.CONFLICT if other != job.id:
                    conflicts.append(self._conflict(job, other))
                case EnqueueResult.CONFLICT:
                    log.warning("request-refused", extra={"job": job.id, "reason": "its id belongs to another request"})
        if again and self._results:
            await self._results.keep_ended(again)
        if conflicts:
            await self._record(conflicts)

    def _conflict(self, job: NewJob, other: str) -> Ready:
        error = Conflict(f"idempotency key {job.key!r} belongs to job {other}, which asks for something else")
        asked = {"provider": job.provider, "operation": job.operation}
        return Ready(self._acceptance.refused(job.id, asked, error, message=job.message), {})


def decode(body: bytes, now: float) -> Sent:
    """Read a message as Celery's producers write it (protocol 1 and 2), at `now` by Redis's clock.

    Raises:
        Unusable: it has no job id.
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
        raise Unusable(f"not a Celery message: {type(error).__name__}: {error}") from error
    try:
        return _sent(headers, message.decode(), now)
    except Unusable:
        raise
    except Exception as error:  # noqa: BLE001 - each serializer and each compression has errors of its own
        return Sent(_job_id(headers.get("id")), {}, refusal=f"message: {error}; it must be JSON ({JSON})")


def _sent(headers: Mapping[str, Any], content: Any, now: float) -> Sent:
    if "task" in headers and isinstance(content, list) and len(content) == 3:
        return read(headers, *content, now=now)
    if isinstance(content, dict) and "task" in content:  # protocol 1
        return read(content, content.get("args"), content.get("kwargs"), content, now=now)
    raise Unusable("a message without a task")


def read(fields: Mapping[str, Any], args: Any, kwargs: Any, embed: Any, *, now: float = 0.0) -> Sent:
    """What a message asks for.

    Args:
        fields: `task`, `id`, `eta`, `expires` and `traceparent`.
        args: the task's.
        kwargs: the task's.
        embed: what should run after it.
        now: seconds since 1970 that `eta` and `expires` are compared with: never this machine's, which may be wrong.

    Raises:
        Unusable: its id can be no job's.
    """
    job_id, asked = _job_id(fields.get("id")), _requested(args, kwargs)
    try:
        if fields["task"] != TASK:
            raise ValueError(f"task: given {fields['task']!r:.100}; this queue takes {TASK} only")
        countdown = _countdown(fields.get("eta"), fields.get("expires"), embed, now)
        return Sent(job_id, asked, countdown, trace=str(fields.get("traceparent", "")))
    except ValueError as error:
        return Sent(job_id, asked, refusal=str(error))


def _job_id(given: Any) -> str:
    if not isinstance(given, str) or not re.fullmatch(JOB_ID_PATTERN, given):
        raise Unusable(f"task id {str(given)[:200]!r} is no job id: it must match {JOB_ID_PATTERN}")
    return given


def _requested(args: Any, kwargs: Any) -> Any:
    """The kwargs, or a single positional dict; anything else will be refused under the job's id."""
    if not args:
        return kwargs or {}
    if not kwargs and isinstance(args, list | tuple) and len(args) == 1:
        return args[0]
    return {**(kwargs if isinstance(kwargs, dict) else {}), "args": args}


def _countdown(eta: Any, expires: Any, embed: Any, now: float) -> float:
    """Seconds until the job is due. Raises ValueError for what no job can have."""
    later = [name for name in _AFTER if isinstance(embed, dict) and embed.get(name)]
    if later:
        raise ValueError(
            f"{', '.join(later)}: nothing is run after a job; name a target instead (celery://task?queue=q)"
        )
    if expires and _from("expires", expires, now) <= 0:
        raise ValueError(f"expires: the message was taken in after {expires}")
    return max(0.0, _from("eta", eta, now)) if eta else 0.0


def _from(name: str, given: Any, now: float) -> float:
    try:
        at = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: given {given!r:.100}; must be a time in ISO 8601") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
