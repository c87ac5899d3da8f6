"""Turns a producer's request into a job, or says why it is invalid. Every way to enqueue uses it."""

import re
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from outwait.config.settings import Settings
from outwait.worker.model import targets
from outwait.worker.model.destinations import Destinations
from outwait.worker.model.errors import InvalidRequest, OutwaitError
from outwait.worker.model.jobs import (
    JOB_ID_PATTERN,
    TARGET_LENGTH_MAX,
    TARGETS_MAX,
    TENANT_PATTERN,
    JobError,
    JobRequest,
)
from outwait.worker.model.owners import Owners
from outwait.worker.model.times import milliseconds
from outwait.worker.net.outbound import Guard, webhook_refusal
from outwait.worker.providers.registry import Registry, describe
from outwait.worker.store import codec, handlers
from outwait.worker.store.lanes import NewJob

UNKNOWN = "unknown"
"""Provider and operation of a refused job whose request names none. The store keeps lists by provider: a made-up name
would leave its own behind."""

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""A trace context that our spans can continue (W3C Trace Context, version 00)."""

MissingHandlers = Callable[[Collection[str]], Awaitable[frozenset[str]]]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Acceptance:
    """The checks of one process.

    Args:
        registry: the providers, which validate parameters.
        settings: the size limit of a request, and which streams, queues and receivers of webhooks are allowed, and to
            which tenants targets belong.
        missing: of names of handlers, those that no worker has.
    """

    def __init__(self, registry: Registry, settings: Settings, missing: MissingHandlers | None = None) -> None:
        self._registry = registry
        self.params_max = settings.store.params_max
        """Bytes that a request may have."""
        self._compress_above = settings.store.compress_above
        self._signs = bool(settings.webhooks.secrets) or settings.webhooks.signed
        self._guard = Guard(settings.outbound.allow)
        self._destinations = Destinations.of(settings)
        self._owners = Owners(settings.handlers.tenants)
        self._missing = missing

    async def unknown_handlers(self, *raw: Any) -> frozenset[str]:
        """The handlers that requests name and no worker has, given their targets. Raises StoreUnavailable."""
        texts = {text for targets_of_one in raw for text in named_targets(targets_of_one)}
        names = frozenset(text for text in texts if targets.NAME.fullmatch(text))
        return await self._missing(names) if names and self._missing else frozenset()

    def request(self, raw: Any) -> JobRequest:
        """Read a request. Raises InvalidRequest if it does not follow the wire contract."""
        try:
            return JobRequest.model_validate(raw)
        except ValidationError as error:
            raise InvalidRequest(describe(error, JobRequest)) from error

    def job(
        self,
        job_id: str,
        request: JobRequest,
        *,
        message: str = "",
        countdown: float = 0,
        trace: str = "",
        unknown: Collection[str] = (),
    ) -> NewJob:
        """A job ready to be recorded. Raises InvalidRequest.

        Args:
            job_id: its id.
            request: what the producer asks for.
            message: name of the producer's message, if it came as one.
            countdown: seconds until its submit, if the request does not ask for more.
            trace: the producer's trace context (W3C `traceparent`); an invalid one is ignored.
            unknown: handlers that no worker has, of those that it names.
        """
        countdown = max(countdown, request.countdown or 0)
        if not re.fullmatch(JOB_ID_PATTERN, job_id):
            raise InvalidRequest(f"job id {job_id[:200]!r} must match {JOB_ID_PATTERN}")
        self._registry.validate(request.provider, request.operation, request.params)
        canonical = [self._target(target, request.tenant, unknown) for target in request.targets]
        fields = {"params": request.params, "targets": canonical, "metadata": request.metadata}
        try:
            spec = codec.encode({name: value for name, value in fields.items() if value})
            digest = codec.digest(request)
        except (ValueError, OverflowError) as error:  # lone surrogates; a number that is too large
            raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error
        if len(spec) > self.params_max:
            raise InvalidRequest(
                f"the request has {len(spec)} bytes, but OUTWAIT_STORE__PARAMS_MAX allows {self.params_max}: "
                "send large input as a URL, or raise the setting"
            )
        deadline = request.deadline or self._registry.operation(request.provider, request.operation).deadline
        return NewJob(
            id=job_id,
            provider=request.provider,
            operation=request.operation,
            digest=digest,
            spec=codec.blob(spec, self._compress_above),
            key=request.idempotency_key or "",
            deadline_ms=milliseconds(countdown + deadline),
            message=message,
            countdown_ms=max(0, milliseconds(countdown)),
            tenant=request.tenant or "",
            priority=request.priority,
            trace=trace if TRACEPARENT.fullmatch(trace) else "",
        )

    def _target(self, text: str, tenant: str | None, unknown: Collection[str]) -> str:
        target = targets.parse(text)
        if isinstance(target, targets.FunctionTarget) and target.name in unknown:
            raise InvalidRequest(handlers.refusal(target.name))
        if isinstance(target, targets.WebhookTarget):
            why = webhook_refusal(target, signs=self._signs, guard=self._guard)
            if why:
                raise InvalidRequest(f"target {target.host}: {why}")
        if why := self._destinations.refusal(target) or self._owners.refusal(target, tenant):
            raise InvalidRequest(why)
        return targets.canonical(target)

    def _valid_targets(self, raw: Any, tenant: str | None, unknown: Collection[str]) -> list[str]:
        """The valid targets of a refused request, as many as a job may name: they are informed of the refusal."""
        valid = []
        for target in named_targets(raw):
            with suppress(InvalidRequest):
                valid.append(self._target(target, tenant, unknown))
        return valid

    def refused(
        self, job_id: str, raw: Any, error: OutwaitError, *, message: str = "", unknown: Collection[str] = ()
    ) -> NewJob:
        """A job that has failed at once, so that its producer can read the reason under the job's id."""
        fields = raw if isinstance(raw, dict) else {}
        tenant = _tenant(fields.get("tenant"))
        # Without its tenant a refusal would look like that of a job without one, so no target gets it.
        informed = [] if tenant is None else self._valid_targets(fields.get("targets"), tenant, unknown)
        spec = codec.encode({"targets": informed})
        return NewJob(
            id=job_id,
            provider=self._provider(fields.get("provider")),
            operation=_name(fields.get("operation")),
            digest=f"refused-{codec.fingerprint(repr(fields))}",
            spec=codec.blob(spec, self._compress_above),
            error=JobError(error.code, str(error)).text(),
            message=message,
            tenant=tenant or "",
        )

    def _provider(self, value: Any) -> str:
        return value if isinstance(value, str) and value in self._registry.names else UNKNOWN


def named_targets(raw: Any) -> list[str]:
    """The targets that a request names, whatever they are: only as many, and as long, as a job may name."""
    texts = raw[:TARGETS_MAX] if isinstance(raw, list) else []
    return [text for text in texts if isinstance(text, str) and len(text) <= TARGET_LENGTH_MAX]


def _name(value: Any) -> str:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else UNKNOWN


def _tenant(value: Any) -> str | None:
    """The tenant of a request: "" if it names none, None if it cannot be read."""
    if value is None:
        return ""
    return value if isinstance(value, str) and re.fullmatch(TENANT_PATTERN, value) else None
