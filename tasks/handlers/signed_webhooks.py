"""Signed webhooks: one POST a delivery, as Standard Webhooks lays down, and what the receiver's answer means."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import NamedTuple, Protocol

import httpx

from outwait.config.http_groups import WebhookSettings
from outwait.tasks.handlers.envelope import TENANT_HEADER, Envelope
from outwait.worker.model.errors import AddressRefused, DeliveryFailed, DeliveryRefused, ProviderError, Withheld
from outwait.worker.model.targets import WebhookTarget, allowed
from outwait.worker.net.outbound import Guard, webhook_refusal
from outwait.worker.net.redaction import redact
from outwait.worker.net.signatures import signed
from outwait.worker.providers.exchange import retry_after
from outwait.worker.store.receivers import DisabledReceiver

ANSWER_READ = 2048
"""Bytes of an answer that are looked at."""

ANSWER_WITHIN = 1.0
"""Seconds in which they must come; the status alone decides."""

ANSWER_SHOWN = 100
"""Characters of an answer that are kept."""

PLACES = 256
"""Webhooks that one worker process sends at once: each needs a file descriptor, and polls need theirs."""


class Sender(Protocol):
    """What sends where a producer says: the process's guarded connections."""

    def stream(self, request: httpx.Request, *, timeout: float) -> AbstractAsyncContextManager[httpx.Response]:
        """Send and hand out the answer unread. Raises AddressRefused, NotSent or AnswerLost."""
        ...


class DisabledReceivers(Protocol):
    """Which receivers are disabled: the store."""

    async def find(self, url: str, tenant: str | None) -> DisabledReceiver | None:
        """The entry of a receiver that is disabled for a tenant."""
        ...

    async def disable(self, url: str, why: str, tenant: str | None) -> None:
        """Send nothing more of a tenant's to a receiver."""
        ...


class Webhooks:
    """Sends webhooks. Used from one event loop.

    Args:
        settings: the master secrets, the receivers that serve all tenants, and the time limit.
        guard: which receivers the operator allows though they are no public https ones.
        sender: the connections.
        receivers: which receivers are disabled.
    """

    def __init__(self, settings: WebhookSettings, guard: Guard, sender: Sender, receivers: DisabledReceivers) -> None:
        self._secrets = [secret.get_secret_value() for secret in settings.secrets]
        self._shared = settings.shared
        self._time_limit = settings.time_limit
        self._guard = guard
        self._sender = sender
        self._receivers = receivers
        self._free = asyncio.Semaphore(PLACES)

    @property
    def signs(self) -> bool:
        """Whether this process has a master secret."""
        return bool(self._secrets)

    def refusal(self, target: WebhookTarget) -> str:
        """Why nothing is sent to a receiver, or ""."""
        return webhook_refusal(target, signs=self.signs, guard=self._guard)

    async def deliver(self, target: WebhookTarget, envelope: Envelope, trace: str = "") -> str:
        """Send one delivery, with a trace context if there is one.

        Returns:
            What the receiver answered: status, seconds, the beginning of its text.

        Raises:
            DeliveryFailed: the receiver gave no answer, or one that is not 2xx.
            DeliveryRefused: nothing may be sent to the receiver, or it is disabled for this tenant: now (it answered
                410) or before.
            Withheld: the lease of the delivery may have ended, so nothing was sent.
        """
        if why := self.refusal(target):
            raise DeliveryRefused(why)
        if disabled := await self._receivers.find(target.receiver, envelope.tenant):
            raise DeliveryRefused(_disabled(target, envelope.tenant, disabled.why))
        async with self._free:
            answer = await self._post(target, self._request(target, envelope, trace))
        if 200 <= answer.status < 300:
            return answer.summary
        if answer.status == 410:
            why = f"it answered {answer.summary}"
            await self._receivers.disable(target.receiver, why, envelope.tenant)
            raise DeliveryRefused(_disabled(target, envelope.tenant, why))
        redirected = "; redirects are not followed: name where it leads to" if 300 <= answer.status < 400 else ""
        raise DeliveryFailed(f"{target.host} answered {answer.summary}{redirected}", retry_after=answer.retry_after)

    async def _post(self, target: WebhookTarget, request: httpx.Request) -> "_Answer":
        begun = time.monotonic()
        try:
            async with self._sender.stream(request, timeout=self._time_limit) as response:
                took = time.monotonic() - begun
                text = await _beginning(response)
        except AddressRefused as error:
            raise DeliveryRefused(str(error)) from error
        except Withheld:
            raise
        except ProviderError as error:
            raise DeliveryFailed(f"{target.host} {_no_answer(error, self._time_limit)}") from error
        summary = f"{response.status_code} in {took:.2f} s" + (f": {text}" if text else "")
        return _Answer(response.status_code, summary, retry_after(response))

    def _request(self, target: WebhookTarget, envelope: Envelope, trace: str) -> httpx.Request:
        body = envelope.json()
        headers = signed(
            self._secrets,
            target.receiver,
            envelope.delivery_id,
            int(time.time()),
            body,
            self._signers(target, envelope.tenant or ""),
        )
        beside = {"content-type": "application/json", "traceparent": trace, TENANT_HEADER: envelope.tenant or ""}
        headers |= {name: value for name, value in beside.items() if value}
        try:
            return httpx.Request("POST", target.url, headers=headers, content=body)
        except httpx.InvalidURL as error:
            raise DeliveryRefused(f"{target.host}: {error}") from error

    def _signers(self, target: WebhookTarget, tenant: str) -> Sequence[str]:
        """Whose secrets sign. A receiver of all tenants may hold the shared secret, or the tenant's already."""
        return ("", tenant) if tenant and allowed(target.receiver, self._shared) else (tenant,)


class _Answer(NamedTuple):
    status: int
    summary: str
    retry_after: float | None


async def _beginning(response: httpx.Response) -> str:
    """The first words of an answer, without secrets and control characters; its end is not waited for."""
    body = bytearray()
    with suppress(TimeoutError, ProviderError):
        async with asyncio.timeout(ANSWER_WITHIN):
            async for chunk in response.aiter_raw():
                body += chunk[:ANSWER_READ]
                if len(body) >= ANSWER_READ:
                    break
    words = " ".join(body[:ANSWER_READ].decode("ascii", "replace").split())
    text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in redact(words))
    return text if len(text) <= ANSWER_SHOWN else text[:ANSWER_SHOWN] + "..."


def _no_answer(error: ProviderError, time_limit: float) -> str:
    """Why there is no answer. The error's own text names the path, which may be a secret of the receiver's."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return f"did not answer within {time_limit:g} s"
    return f"gave no answer: {redact(str(cause)) or type(cause).__name__}"


def _disabled(target: WebhookTarget, tenant: str | None, why: str) -> str:
    whose, option = (f" for tenant {tenant}", f" --tenant {tenant}") if tenant else ("", "")
    return (
        f"the receiver at {target.host} is disabled{whose}: {why}. `outwait endpoints` shows it, and "
        f"`outwait endpoints --enable URL{option}` lets it be sent to again"
    )
