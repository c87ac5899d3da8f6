"""Webhooks of providers: the URL that each job's is sent to, and what one that came means for its job.

A webhook's content proves nothing, since no provider here signs it: it is a hint, which a poll confirms, unless the
provider's settings trust it. That it came to a URL which only the provider was told is what lets it in at all.
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
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Failed, Pending, Succeeded
from outwait.worker.providers.registry import Registry
from outwait.worker.store.provider_webhooks import ProviderWebhooks, Webhook
from outwait.worker.store.store import Store

log = logging.getLogger(__name__)

SIGNED = 22
"""Characters of a token that sign the job id behind them: 128 bits."""

_EXTERNAL_ID = re.compile(r"[!-~]{1,128}")
"""What an external id may look like that a webhook names."""


class WebhookUrls:
    """Where providers send webhooks to. The part that nobody can guess is made with a secret that the store keeps.

    Args:
        settings: where providers reach the web process.
        webhooks: keeps the secret.
    """

    def __init__(self, settings: Settings, webhooks: ProviderWebhooks) -> None:
        self._root = settings.web.public_url
        self._namespace = settings.namespace
        self._webhooks = webhooks
        self._secret = b""
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Have the secret. Raises StoreUnavailable."""
        if self._secret:
            return
        async with self._opening:  # a burst asks for it once
            self._secret = self._secret or await self._webhooks.secret()

    async def url(self, provider: str, job_id: str) -> str | None:
        """Where the provider posts this job's webhook; None: nowhere. Raises StoreUnavailable before the first one."""
        if self._root is None:
            return None
        await self.open()
        return f"{self._root.rstrip('/')}/webhooks/{provider}/{self._signature(provider, job_id)}{job_id}"

    def job_of(self, provider: str, token: str) -> str | None:
        """The job that a token is for, or None if we did not make it. Needs `open`."""
        signature, job_id = token[:SIGNED], token[SIGNED:]
        if not re.fullmatch(JOB_ID_PATTERN, job_id):
            return None
        right = hmac.compare_digest(signature.encode(), self._signature(provider, job_id).encode())
        return job_id if right else None

    def _signature(self, provider: str, job_id: str) -> str:
        text = f"webhook|{self._namespace}|{provider}|{job_id}"
        return urlsafe_b64encode(hmac.digest(self._secret, text.encode(), hashlib.sha256)[:16]).decode().rstrip("=")


class _Reading(NamedTuple):
    """What a webhook says. `answer` is there if it says that the job ended."""

    verdict: WebhookVerdict
    summary: str
    external_id: str = ""
    answer: Succeeded | Failed | None = None


class Receiver:
    """Webhooks that came, of one namespace, for one event loop."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._settings = store.settings
        self._registry = registry
        self._webhooks = store.webhooks
        self._lanes = store.lanes
        self._reads = store.reads

    def webhook_received(self, webhook: Webhook, *, again: bool = False) -> WebhookReceived:
        """What is recorded of a webhook. Whatever its body is, this raises nothing. `again`: it was kept before."""
        name, store = webhook.provider, self._settings.store
        reading = self._read(webhook)
        trusted = reading.answer if self._registry.limits(name).trust_webhooks else None
        kept = msgspec.structs.replace(webhook, summary=reading.summary)
        return WebhookReceived(
            work_id=webhook.job_id,
            record=None if again else kept.packed(store.compress_above),
            summary=f"{reading.summary}, {webhook.size} bytes",
            verdict=reading.verdict,
            external_id=reading.external_id,
            min_interval_ms=int(self._registry.longest_interval(name) * 1000),
            nonce=secrets.token_hex(4),
            end_outcome=end_outcome(webhook.job_id, NO_FENCE, trusted, store) if trusted else None,
        )

    async def of(self, job_id: str) -> list[Webhook]:
        """A job's webhooks, oldest first; more than the first twenty are only counted. Raises JobNotFound."""
        return await self._webhooks.of((await self._reads.job(job_id)).id)

    async def unknown(self) -> list[Webhook]:
        """Webhooks for jobs that are gone, oldest first."""
        return await self._webhooks.unknown()

    async def replay(self, job_id: str) -> int:
        """Do again what a job's webhooks say, their reader having been mended, say; how many. Raises JobNotFound."""
        webhooks = await self.of(job_id)
        await self._lanes.record([self.webhook_received(webhook, again=True) for webhook in webhooks])
        return len(webhooks)

    async def replay_unknown(self) -> int:
        """The same for webhooks whose jobs are there after all; how many."""
        unknown = await self.unknown()
        there = {job.id for job in await self._reads.jobs(sorted({webhook.job_id for webhook in unknown}))}
        known = [webhook for webhook in unknown if webhook.job_id in there]
        await self._lanes.record([self.webhook_received(webhook) for webhook in known])
        for job_id in there:
            await self._webhooks.forget_unknown(job_id)
        return len(known)

    async def last_end(self, job: Job) -> End:
        """The end that a job's last webhook tells. Raises WrongState if none tells one."""
        for webhook in reversed(await self._webhooks.of(job.id)):
            answer = self._read(webhook).answer
            if answer:
                return end_outcome(job.id, NO_FENCE, answer, self._settings.store)
        raise WrongState(f"no webhook of job {job.id} says how it ended: `outwait webhooks {job.id}` lists them")

    def _read(self, webhook: Webhook) -> _Reading:
        if webhook.problem:
            return _Reading(WebhookVerdict.UNCLEAR, webhook.problem)
        try:
            found = self._registry.get(webhook.provider).read_webhook(webhook.body)
        except OutwaitError as error:
            return _Reading(WebhookVerdict.UNCLEAR, redact(f"{error.code}: {error}"))
        except Exception as error:
            log.exception("webhook-reader-broken", extra={"job": webhook.job_id, "provider": webhook.provider})
            return _Reading(WebhookVerdict.UNCLEAR, f"its reader failed: {type(error).__name__}")
        external_id = found.external_id or ""
        if not _EXTERNAL_ID.fullmatch(external_id):
            external_id = ""
        match found.answer:
            case Pending(status=status, warning=warning):
                return _Reading(
                    WebhookVerdict.UNCLEAR if warning else WebhookVerdict.UNFINISHED, redact(status), external_id
                )
            case Succeeded() | Failed():
                return _Reading(WebhookVerdict.ENDED, redact(found.answer.status), external_id, found.answer)
