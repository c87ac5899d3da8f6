"""Webhooks as RingCentral sends them: repeated up to five times, unless the answer is exactly 200."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from outwait.sandbox.behaviour import WebhookMode
from outwait.sandbox.ledger import Job, Ledger, note

REDELIVERIES = 5
"""Number of repetitions after the first delivery (documented). The delays between them are not published."""

_TIME_LIMIT = aiohttp.ClientTimeout(total=10)


class Webhooks:
    """Sends webhooks. Each job with a webhook has a timer; there is a task only while the webhook is sent.

    Args:
        ledger: where deliveries and their answers are noted.
        backoff: seconds before the first redelivery; doubled each time.
    """

    def __init__(self, ledger: Callable[[], Ledger], backoff: float) -> None:
        self._ledger = ledger
        self._backoff = backoff
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def schedule(self, job: Job, document: Callable[[], Any]) -> None:
        """Schedule a job's webhook according to its behaviour. `document` makes the body when it is sent.

        An early one is sent here, before the caller answers the submit.
        """
        mode = job.behaviour.webhook
        if mode is WebhookMode.NEVER or job.webhook is None:
            return
        if mode is WebhookMode.EARLY:
            if not await self._send(job, document):
                self._start(job, document, redelivery=1)
            return
        wait = job.ready - time.time() + (job.behaviour.webhook_delay if mode is WebhookMode.LATE else 0)
        timer = asyncio.get_running_loop().call_later(max(wait, 0), self._due, job, document)
        self._timers[job.id] = timer

    def forget(self) -> None:
        """Cancel all scheduled webhooks."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Forget everything and close the connections."""
        self.forget()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _due(self, job: Job, document: Callable[[], Any]) -> None:
        self._timers.pop(job.id, None)
        for _ in range(2 if job.behaviour.webhook is WebhookMode.TWICE else 1):
            self._start(job, document)

    def _start(self, job: Job, document: Callable[[], Any], redelivery: int = 0) -> None:
        task = asyncio.create_task(self._deliver(job, document, redelivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, job: Job, document: Callable[[], Any], redelivery: int) -> None:
        for attempt in range(redelivery, REDELIVERIES + 1):
            if attempt:
                await asyncio.sleep(self._backoff * 2 ** (attempt - 1))
            if await self._send(job, document):
                return

    async def _send(self, job: Job, document: Callable[[], Any]) -> bool:
        totals = self._ledger().of(job.provider)
        totals.webhooks_sent += 1
        at = time.time()
        answer = await self._post(str(job.webhook), msgspec.json.encode(document()))
        note(job.webhooks, {"at": at, "answer": answer})
        acknowledged = answer == 200
        totals.webhooks_acknowledged += acknowledged
        return acknowledged

    async def _post(self, url: str, body: bytes) -> int | str:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIME_LIMIT)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
