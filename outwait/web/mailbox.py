"""Receives the webhooks of providers: decompresses bodies within a limit, and stores several in one round trip."""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator

from outwait.worker.engine.provider_webhooks import WebhookProcessor, WebhookUrls
from outwait.worker.model.errors import StoreRefused
from outwait.worker.model.outcomes import WebhookReceived
from outwait.worker.providers.registry import PROVIDERS, Registry
from outwait.worker.store.lanes import Lanes
from outwait.worker.store.provider_webhooks import Webhook
from outwait.worker.store.store import Store

log = logging.getLogger(__name__)

HEAD = 2048
"""Bytes kept of a body that is too large."""

DRAINED = 8
"""Multiple of the size limit up to which a body is read on and dropped, so that its sender reads the answer."""

LARGE = 65_536
"""Bytes of a body above which a thread parses and compresses it, so that the event loop is not blocked."""

BATCH, BATCH_BYTES = 128, 1_048_576
"""Webhooks, and bytes, that are written in one round trip. A larger webhook is written by itself."""

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def known(provider: str) -> str:
    """The provider in a webhook's path, for the log. Any other text there may be a secret and is not logged."""
    return provider if provider in PROVIDERS else "unknown"


class Mailbox:
    """Receives webhooks and stores them. There is one in each web process.

    Args:
        store: stores the webhooks; its settings say how large a body may be.
        registry: the providers, which parse the bodies.
    """

    def __init__(self, store: Store, registry: Registry) -> None:
        self._body_max = store.settings.web.body_max
        self._urls = WebhookUrls(store.settings, store.webhooks)
        self._processor = WebhookProcessor(store, registry)
        self._writer = _Writer(store.lanes)
        self.refused = 0
        """Number of requests whose token is not one of ours."""

    async def job_of(self, provider: str, token: str) -> str | None:
        """The job that a webhook is for; None if the token is not one of ours. Raises StoreUnavailable."""
        await self._urls.open()
        job_id = self._urls.job_of(provider, token) if provider in PROVIDERS else None
        if job_id is None:
            self.refused += 1
            log.info("webhook-refused", extra={"provider": known(provider), "refused": self.refused})
        return job_id

    async def take(self, provider: str, job_id: str, encoding: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store one webhook, whatever its body is. It is in the store when this returns.

        Returns:
            Whether the provider may forget its copy. It may not if this one is trusted and too large to be kept.

        Raises:
            StoreUnavailable, StoreRefused: it is not stored, or that is not known.
        """
        content = _Content(self._body_max, encoding)
        async for chunk in chunks:
            content.add(chunk)
            if content.size > DRAINED * self._body_max:
                break
        webhook = Webhook(provider, job_id, *content.end())
        if len(webhook.body) > LARGE:
            outcome = await asyncio.to_thread(self._processor.webhook_received, webhook)
        else:
            outcome = self._processor.webhook_received(webhook)
        await self._writer.write(outcome)
        return not (content.too_large and self._processor.trusts(provider))


class _Content:
    """A body while it arrives. It is decompressed on the way, and no more than the limit is held in memory.

    Args:
        limit: bytes.
        encoding: the header Content-Encoding.
    """

    def __init__(self, limit: int, encoding: str) -> None:
        self._limit = limit
        self._encoding = encoding.strip().lower()[:40]
        self._kept = bytearray()
        self.size = 0
        self.too_large = False
        self._problem = ""
        bits = _WINDOW_BITS.get(self._encoding)
        self._inflater = zlib.decompressobj(bits) if bits else None
        if bits is None and self._encoding not in ("", "identity"):
            self._problem = f"its Content-Encoding {self._encoding!r} is not supported"

    def add(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self.size += len(chunk)
        room = self._limit + 1 - len(self._kept)  # one byte above the limit shows that it is too large
        if self._problem:
            self._kept += chunk[: max(0, HEAD - len(self._kept))]
            return
        try:
            self._kept += self._inflater.decompress(chunk, room) if self._inflater else chunk[:room]
        except zlib.error as error:
            self._problem = f"its {self._encoding} data is damaged: {error}"
        if len(self._kept) > self._limit:
            self.too_large = True
            self._problem = f"larger than {self._limit} bytes (OUTWAIT_WEB__BODY_MAX)"
            del self._kept[HEAD:]

    def end(self) -> tuple[bytes, int, str]:
        """The content that is stored, the number of bytes that arrived, and why it cannot be read (or "")."""
        if self._inflater and self.size and not self._inflater.eof and not self._problem:
            self._problem = f"its {self._encoding} data is incomplete"
        return bytes(self._kept), self.size, self._problem


class _Writer:
    """Writes webhooks to the store, several in one round trip. Each caller waits until its own is written."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._waiting: list[tuple[WebhookReceived, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, outcome: WebhookReceived) -> None:
        """Write one. Raises StoreUnavailable or StoreRefused: it is not written, or that is not known."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._waiting.append((outcome, written))
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_all())
        await written

    async def _write_all(self) -> None:
        while self._waiting:
            batch = self._next()
            if not await self._write(batch) and len(batch) > 1:
                for entry in batch:  # Redis refuses at least one of them for good; the others are written one by one
                    await self._write([entry])

    def _next(self) -> list[tuple[WebhookReceived, asyncio.Future[None]]]:
        size, count = 0, 0
        for outcome, _ in self._waiting[:BATCH]:
            size += len(bytes(outcome.record or b""))
            if count and size > BATCH_BYTES:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _write(self, batch: list[tuple[WebhookReceived, asyncio.Future[None]]]) -> bool:
        """Write a batch and notify its callers. False: Redis refused it and nobody was notified."""
        problem: Exception | None = None
        try:
            await self._lanes.record([outcome for outcome, _ in batch])
        except StoreRefused as error:
            if len(batch) > 1:
                return False
            problem = error
        except Exception as error:  # noqa: BLE001 - it is passed to each caller
            problem = error
        for _, written in batch:
            if written.done():
                continue
            if problem:
                written.set_exception(problem)
            else:
                written.set_result(None)
        return True
