"""Turns producers' messages into jobs: takes them from their queue under a lease, decodes them and records them.

Celery's consumer can lose what it pops from Redis, so it does not consume this queue. Here a message is deleted only
when its job is recorded. On a broker with real acknowledgements, `tasks.submit` is an ordinary task and calls `accept`.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from outwait.config.groups import IntakeSettings
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.celery.results import CeleryResults
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.engine.messages import Sent, Unusable, content_max, decode, message_max
from outwait.worker.engine.quotas import quota_error
from outwait.worker.model.errors import Conflict, InvalidRequest, RequestError, StoreUnavailable
from outwait.worker.net.redaction import bytes_of, redact, redact_bytes
from outwait.worker.store.codes import EnqueueResult
from outwait.worker.store.inbox import Inbox, TakeLimits, Taken, lists_of
from outwait.worker.store.lanes import Lanes, NewJob

log = logging.getLogger(__name__)

PARKED_SHOWN = 4000
"""Characters of a parked message that are kept for a person to read."""

OUTAGE_PAUSE = 1.0
"""Seconds between two tries while Redis does not answer."""

TAKES = 3
"""Workers that may die, or stand still until its lease ends, while they have a message; then it is parked."""

RECORDED_AT_ONCE = 4 * 1024 * 1024
"""Bytes of messages whose jobs are recorded together: plain data takes many times the memory of its JSON."""


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
        self._limits = TakeLimits(settings.batch, message_max(acceptance.params_max), bytes_of(PARKED_SHOWN))
        self._content_max = content_max(acceptance.params_max)
        self._harmless: list[str] = []

    async def take(self) -> bool:
        """Turn one batch of waiting messages into jobs. Returns whether more may wait."""
        batch = await self._inbox.take(self._lists, self._limits, self._harmless)
        self._harmless = []
        try:
            await self._take_in(batch.messages)
        except StoreUnavailable:
            self._harmless += [message.name for message in batch.messages]
            raise
        return batch.more

    async def _take_in(self, messages: Sequence[Taken]) -> None:
        ready: list[Ready] = []
        size = 0
        for message in messages:
            if (job := await self._job_of(message)) is not None:
                ready.append(job)
                size += len(message.body)
            if size > RECORDED_AT_ONCE:
                await self._record_taken(ready)
                ready, size = [], 0
        await self._record_taken(ready)

    async def _unknown(self, sent: Sent) -> frozenset[str]:
        """The handlers that a message names and no worker has."""
        fields = sent.request if isinstance(sent.request, dict) else {}
        return await self._acceptance.unknown_handlers(fields.get("targets"))

    async def _job_of(self, message: Taken) -> Ready | None:
        """The job that a message asks for; None if it is parked."""
        try:
            self._check(message)
            sent = decode(message.body, message.at, self._content_max)
        except Unusable as error:
            await self.park(message, str(error))
            return None
        return self._ready(sent, message.name, await self._unknown(sent))

    def _check(self, message: Taken) -> None:
        """Raises Unusable for what must not even be read."""
        if message.takes >= TAKES:
            raise Unusable(
                f"{message.takes} workers died, or stood still until its lease ended, while they had this message"
            )
        if message.length > self._limits.message_max:
            raise Unusable(
                f"the message has {message.length} bytes; more than {self._limits.message_max} are not read "
                "(OUTWAIT_STORE__PARAMS_MAX)"
            )

    async def _record_taken(self, ready: Sequence[Ready]) -> None:
        """Record jobs of messages. If Redis does not take them, the messages are not to blame for their leases' end."""
        try:
            await self._record(ready)
        except BaseException:
            self._harmless += [job.message for job, _ in ready if job.message]
            raise

    async def accept(self, sent: Sent) -> None:
        """Record one job from a broker with real acknowledgements. Raises StoreUnavailable."""
        await self._record([self._ready(sent, "", await self._unknown(sent))])

    async def now(self) -> float:
        """Seconds since 1970 by Redis's clock, which all workers share. Raises StoreUnavailable."""
        return await self._inbox.now()

    async def park(self, message: Taken, reason: str) -> None:
        """Store a message without a valid job id where a person can read it."""
        log.warning("message-refused", extra={"reason": reason})
        shown = redact_bytes(message.body, PARKED_SHOWN)
        await self._inbox.park(message.name, redact(reason), shown)

    def _ready(self, sent: Sent, message: str, unknown: Collection[str]) -> Ready:
        try:
            if sent.refusal:
                raise InvalidRequest(sent.refusal)
            request = self._acceptance.request(sent.request)
            job = self._acceptance.job(
                sent.job_id, request, message=message, countdown=sent.countdown, trace=sent.trace, unknown=unknown
            )
            if sent.expires_in is not None and sent.expires_in * 1000 <= job.countdown_ms:
                raise InvalidRequest(
                    f"expires: the message expires in {sent.expires_in:.0f} s, but its job is only due in "
                    f"{job.countdown_ms / 1000:.0f} s (countdown or eta), so it would never be submitted"
                )
            return Ready(job, request.params)
        except RequestError as error:
            return self._refused(sent, error, message, unknown)
        except Exception as error:  # a message that cannot be stored must not hold back the others
            log.exception("request-broken", extra={"job": sent.job_id})
            refusal = InvalidRequest(f"the request cannot be stored: {type(error).__name__}: {error}")
            return self._refused(sent, refusal, message, unknown)

    def _refused(self, sent: Sent, error: RequestError, message: str, unknown: Collection[str]) -> Ready:
        try:
            job = self._acceptance.refused(sent.job_id, sent.request, error, message=message, unknown=unknown)
            return Ready(job, {})
        except (ValueError, OverflowError):  # for example lone surrogates, which JSON cannot represent
            error = InvalidRequest(ascii(str(error)))
            return Ready(self._acceptance.refused(sent.job_id, {}, error, message=message), {})

    async def _record(self, ready: Sequence[Ready]) -> None:
        repeated: list[tuple[str, str]] = []
        refused: list[Ready] = []
        answers = await self._lanes.enqueue([job for job, _ in ready]) if ready else []
        for (job, params), (code, other) in zip(ready, answers, strict=True):
            match code:
                case EnqueueResult.CREATED:
                    self._events.accepted(job.id, job.provider, job.operation, params)
                case EnqueueResult.SAME:
                    repeated.append((job.id, other))
                case EnqueueResult.CONFLICT if other != job.id:
                    refused.append(self._conflict(job, other))
                case EnqueueResult.OVER_QUOTA:
                    refused.append(self._refusal(job, quota_error(job.tenant, other)))
                case EnqueueResult.CONFLICT:
                    log.warning("request-refused", extra={"job": job.id, "reason": "another request has this id"})
        if repeated and self._results:
            await self._results.keep_ended(repeated)
        if refused:
            await self._record(refused)

    def _conflict(self, job: NewJob, other: str) -> Ready:
        return self._refusal(
            job, Conflict(f"the idempotency key {job.key!r} belongs to job {other}, whose request is different")
        )

    def _refusal(self, job: NewJob, error: RequestError) -> Ready:
        fields = {"provider": job.provider, "operation": job.operation, "tenant": job.tenant or None}
        return Ready(self._acceptance.refused(job.id, fields, error, message=job.message), {})
