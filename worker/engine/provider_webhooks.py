"""Webhooks from providers: the URL for each job's webhook, and what a received webhook means for its job.

No provider here signs its webhooks, so their content proves nothing: it is a hint, and a poll confirms it, unless the
provider's settings trust webhooks. A webhook is accepted only at a secret URL that was given to the provider.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from base64 import urlsafe_b64encode
from typing import NamedTuple

import msgspec

from outwait.config.settings import Settings
from outwait.worker.engine.end_outcome import end_outcome
from outwait.worker.model.errors import OutwaitError, WrongState
from outwait.worker.model.jobs import JOB_ID_PATTERN, Job
from outwait.worker.model.outcomes import NO_FENCE, End, WebhookReceived, WebhookVerdict
from outwait.worker.model.times import milliseconds
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Failed, Pending, Succeeded
from outwait.worker.providers.registry import Registry
from outwait.worker.store.provider_webhooks import ProviderWebhooks, Webhook
from outwait.worker.store.store import Store

log = logging.getLogger(__name__)

SIGNED = 22
"""Characters at the start of a token that sign the job id after them: 128 bits."""

_EXTERNAL_ID = re.compile(r"[!-~]{1,128}")
"""The form of an external id that is accepted from a webhook."""


class WebhookUrls:
    """The URLs to which providers send webhooks. Their tokens are signed with a secret that the store keeps.

    Args:
        settings: the URL at which providers reach the web process.
        webhooks: keeps the secret.
    """

    def __init__(self, settings: Settings, webhooks: ProviderWebhooks) -> None:
        self._root = settings.web.public_url
        self._namespace = settings.namespace
        self._webhooks = webhooks
        self._secret = b""
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Read the secret, once. Raises StoreUnavailable."""
        if self._secret:
            return
        async with self._opening:  # concurrent callers read it only once
            self._secret = self._secret or await self._webhooks.secret()

    async def url(self, provider: str, job_id: str) -> str | None:
        """The URL for this job's webhook; None if webhooks are off. The first call may raise StoreUnavailable."""
        if self._root is None:
            return None
        await self.open()
        return f"{self._root.rstrip('/')}/webhooks/{provider}/{self._signature(provider, job_id)}{job_id}"

    def job_of(self, provider: str, token: str) -> str | None:
        """The job that a token is for, or None if we did not make it. Needs `open`."""
        signature, job_id = token[:SIGNED], token[SIGNED:]
        if not re.fullmatch(JOB_ID_PATTERN, job_id):
            return None
        valid = hmac.compare_digest(signature.encode(), self._signature(provider, job_id).encode())
        return job_id if valid else None

    def _signature(self, provider: str, job_id: str) -> str:
        text = f"webhook|{self._namespace}|{provider}|{job_id}"
        return urlsafe_b64encode(hmac.digest(self._secret, text.encode(), hashlib.sha256)[:16]).decode().rstrip("=")


class _Reading(NamedTuple):
    """What a webhook says. `answer` is set if it says that the job ended; `summary` is for people."""

    verdict: WebhookVerdict
    summary: str
    external_id: str = ""
    answer: Succeeded | Failed | None = None


class WebhookProcessor:
    """Reads and processes the received webhooks of one namespace, for one event loop."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._settings = store.settings
        self._registry = registry
        self._webhooks = store.webhooks
        self._lanes = store.lanes
        self._reads = store.reads

    def webhook_received(self, webhook: Webhook, *, stored: bool = False) -> WebhookReceived:
        """What to record for a webhook. It raises no error, whatever the body is. `stored`: it is stored already."""
        name, store = webhook.provider, self._settings.store
        reading = self._read(webhook)
        trusted = reading.answer if self.trusts(name) else None
        if isinstance(trusted, Succeeded) and trusted.result is None:
            trusted = None  # it says that there is a result, and not which: a poll reads it
        kept = msgspec.structs.replace(webhook, summary=reading.summary)
        return WebhookReceived(
            work_id=webhook.job_id,
            record=None if stored else kept.packed(store.compress_above),
            summary=f"{reading.summary}, {webhook.size} bytes",
            verdict=reading.verdict,
            external_id=reading.external_id,
            min_interval_ms=milliseconds(self._registry.longest_interval(name)),
            nonce=secrets.token_hex(4),
            end_outcome=end_outcome(webhook.job_id, NO_FENCE, trusted, store) if trusted else None,
        )

    def trusts(self, provider: str) -> bool:
        """Whether a webhook of this provider ends its job by itself."""
        return self._registry.limits(provider).trust_webhooks

    async def of(self, job_id: str) -> list[Webhook]:
        """The first twenty webhooks of a job, oldest first; later ones are only counted. Raises JobNotFound."""
        return await self._webhooks.of((await self._reads.job(job_id)).id)

    async def unknown(self) -> list[Webhook]:
        """The webhooks whose jobs were not stored when they came, oldest first."""
        return await self._webhooks.unknown()

    async def replay(self, job_id: str) -> int:
        """Process a job's webhooks again, for example after a fix. Returns their number. Raises JobNotFound."""
        webhooks = await self.of(job_id)
        await self._lanes.record([self.webhook_received(webhook, stored=True) for webhook in webhooks])
        return len(webhooks)

    async def replay_unknown(self) -> int:
        """Process the unknown webhooks whose jobs are stored now. Returns their number."""
        unknown = await self.unknown()
        job_ids = {job.id for job in await self._reads.listed(sorted({webhook.job_id for webhook in unknown}))}
        known = [webhook for webhook in unknown if webhook.job_id in job_ids]
        await self._lanes.record([self.webhook_received(webhook) for webhook in known])
        for job_id in job_ids:
            await self._webhooks.forget_unknown(job_id)
        return len(known)

    async def last_end(self, job: Job) -> End:
        """The end according to the job's last webhook that reports one. Raises WrongState if none does."""
        answer = await self.last_answer(job.id)
        if answer is None:
            raise WrongState(f"no webhook of job {job.id} says how it ended; `outwait webhooks {job.id}` shows them")
        return end_outcome(job.id, NO_FENCE, answer, self._settings.store)

    async def last_answer(self, job_id: str) -> Succeeded | Failed | None:
        """How the job ended according to its last webhook that says so; None if none does."""
        answers = (self._read(webhook).answer for webhook in reversed(await self._webhooks.of(job_id)))
        return next((answer for answer in answers if answer), None)

    def _read(self, webhook: Webhook) -> _Reading:
        if webhook.problem:
            return _Reading(WebhookVerdict.UNCLEAR, webhook.problem)
        try:
            content = self._registry.read_webhook(webhook.provider, webhook.body)
        except OutwaitError as error:
            return _Reading(WebhookVerdict.UNCLEAR, redact(f"{error.code}: {error}"))
        except Exception as error:
            log.exception("webhook-reader-broken", extra={"job": webhook.job_id, "provider": webhook.provider})
            return _Reading(WebhookVerdict.UNCLEAR, f"the provider's reader failed: {type(error).__name__}")
        external_id = content.external_id or ""
        if not _EXTERNAL_ID.fullmatch(external_id):
            external_id = ""
        match content.answer:
            case Pending(status=status, warning=warning):
                return _Reading(
                    WebhookVerdict.UNCLEAR if warning else WebhookVerdict.UNFINISHED, redact(status), external_id
                )
            case Succeeded() | Failed():
                return _Reading(WebhookVerdict.ENDED, redact(content.answer.status), external_id, content.answer)
