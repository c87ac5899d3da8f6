"""Takes in what providers post: bodies inflated within bounds, and many written to the store in one round trip."""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator

from outwait.worker.engine.provider_webhooks import Receiver, WebhookUrls
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
"""Times the largest body that is read and dropped, so that its sender gets to read the answer."""

LARGE = 65_536
"""Bytes of a body above which it is read and deflated beside the event loop."""

GROUP, GROUP_BYTES = 128, 1_048_576
"""Webhooks, and bytes of them, that are written in one round trip; one larger one goes alone."""

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def known(provider: str) -> str:
    """The provider in a webhook's path, for the log: what else is put there may be a secret."""
    return provider if provider in PROVIDERS else "unknown"


class Mailbox:
    """Takes webhooks in; one a web process.

    Args:
        store: where they are kept; its settings say how large a body may be.
        registry: the providers, which read the bodies.
    """

    def __init__(self, store: Store, registry: Registry) -> None:
        self._body_max = store.settings.web.body_max
        self._addresses = WebhookUrls(store.settings, store.webhooks)
        self._receiver = Receiver(store, registry)
        self._writer = _Writer(store.lanes)
        self.refused = 0
        """Requests with a token that we did not make."""

    async def job_of(self, provider: str, token: str) -> str | None:
        """The job that a webhook is for; None if the token is none of ours. Raises StoreUnavailable."""
        await self._addresses.open()
        job_id = self._addresses.job_of(provider, token) if provider in PROVIDERS else None
        if job_id is None:
            self.refused += 1
            log.info("webhook-refused", extra={"provider": known(provider), "refused": self.refused})
        return job_id

    async def take(self, provider: str, job_id: str, encoding: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep one webhook, whatever its body is; it is in the store when this returns.

        Raises:
            StoreUnavailable, StoreRefused: it is not kept, or nobody knows.
        """
        content = _Content(self._body_max, encoding)
        async for chunk in chunks:
            content.add(chunk)
            if content.size > DRAINED * self._body_max:
                break
        webhook = Webhook(provider, job_id, *content.end())
        if len(webhook.body) > LARGE:
            heard = await asyncio.to_thread(self._receiver.webhook_received, webhook)
        else:
            heard = self._receiver.webhook_received(webhook)
        await self._writer.write(heard)


class _Content:
    """A body as it comes in: inflated on the way, and never more of it in memory than may be kept.

    Args:
        most: bytes.
        encoding: the header Content-Encoding.
    """

    def __init__(self, most: int, encoding: str) -> None:
        self._most = most
        self._encoding = encoding.strip().lower()[:40]
        self._kept = bytearray()
        self.size = 0
        self._problem = ""
        bits = _WINDOW_BITS.get(self._encoding)
        self._inflater = zlib.decompressobj(bits) if bits else None
        if bits is None and self._encoding not in ("", "identity"):
            self._problem = f"encoded as {self._encoding!r}, which is not read here"

    def add(self, chunk: bytes) -> None:
        """The next bytes of it."""
        self.size += len(chunk)
        room = self._most + 1 - len(self._kept)  # with one byte too many it is too large
        if self._problem:
            self._kept += chunk[: max(0, HEAD - len(self._kept))]
            return
        try:
            self._kept += self._inflater.decompress(chunk, room) if self._inflater else chunk[:room]
        except zlib.error as error:
            self._problem = f"its {self._encoding} is broken: {error}"
        if len(self._kept) > self._most:
            self._problem = f"larger than the {self._most} bytes of OUTWAIT_WEB__BODY_MAX"
            del self._kept[HEAD:]

    def end(self) -> tuple[bytes, int, str]:
        """What is kept of it, the bytes that came, and why it cannot be read."""
        if self._inflater and self.size and not self._inflater.eof and not self._problem:
            self._problem = f"its {self._encoding} ends too soon"
        return bytes(self._kept), self.size, self._problem


class _Writer:
    """Writes what was heard, many in one round trip; each caller goes on when its own is written."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._waiting: list[tuple[WebhookReceived, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, heard: WebhookReceived) -> None:
        """Raises StoreUnavailable or StoreRefused: it is not written, or nobody knows."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._waiting.append((heard, written))
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_all())
        await written

    async def _write_all(self) -> None:
        while self._waiting:
            group = self._next()
            if not await self._write(group) and len(group) > 1:
                for one in group:  # Redis refuses one of them for good: it must not take the others with it
                    await self._write([one])

    def _next(self) -> list[tuple[WebhookReceived, asyncio.Future[None]]]:
        size, many = 0, 0
        for heard, _ in self._waiting[:GROUP]:
            size += len(bytes(heard.record or b""))
            if many and size > GROUP_BYTES:
                break
            many += 1
        group, self._waiting = self._waiting[:many], self._waiting[many:]
        return group

    async def _write(self, group: list[tuple[WebhookReceived, asyncio.Future[None]]]) -> bool:
        """Whether every caller now knows what became of its own."""
        problem: Exception | None = None
        try:
            await self._lanes.record([heard for heard, _ in group])
        except StoreRefused as error:
            if len(group) > 1:
                return False
            problem = error
        except Exception as error:  # noqa: BLE001 - each caller gets it
            problem = error
        for _, written in group:
            if written.done():
                continue
            if problem:
                written.set_exception(problem)
            else:
                written.set_result(None)
        return True
