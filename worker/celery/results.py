"""Stores and announces what a producer's `AsyncResult(job_id)` reads, in the format of Celery's Redis backend.

With the backend itself a small result costs 0.39 ms of CPU and a thread, a result of 100 KB 0.89 ms. This way it is
0.03 and 0.17 ms, because several jobs share one script call and no result is decoded.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from outwait.worker.model.jobs import Job, JobState
from outwait.worker.store.store import Store

CELERY_STATES = {JobState.SUCCEEDED: "SUCCESS", JobState.CANCELLED: "REVOKED"}
"""Celery's state for each end state; every other end is FAILURE."""

TOGETHER = 16
"""Results that are in memory at the same time; each may be large."""


class CeleryResults:
    """The results for producers, of one event loop.

    Args:
        backend: Celery's Redis result backend; it names the keys and encodes exceptions, but never connects.
        store: the store, in the same Redis.
    """

    def __init__(self, backend: Any, store: Store) -> None:
        self._backend = backend
        self._store = store
        self._expires_s = math.ceil(store.settings.events.results_expire)

    async def keep(self, results: Sequence[tuple[str, Job, bytes]]) -> None:
        """Store results: the task id for each, its job, and its JSON. Raises StoreUnavailable."""
        for start in range(0, len(results), TOGETHER):
            part = results[start : start + TOGETHER]
            rows = [(self._key(task_id), self._encoded(task_id, job, text)) for task_id, job, text in part]
            await self._store.results.keep(rows, expires_s=self._expires_s)

    async def keep_ended(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Store the results of the jobs that have ended. Each pair is a task id and its job's id."""
        jobs = {job.id: job for job in await self._store.reads.listed(sorted({job_id for _, job_id in pairs}))}
        ended = [(task_id, jobs[job_id]) for task_id, job_id in pairs if job_id in jobs and jobs[job_id].state.ended]
        for start in range(0, len(ended), TOGETHER):
            part = ended[start : start + TOGETHER]
            texts = await self._store.reads.result_texts([job.id for _, job in part])
            await self.keep([(task_id, job, text) for (task_id, job), text in zip(part, texts, strict=True)])

    def _key(self, task_id: str) -> str:
        key: bytes = self._backend.get_key_for_task(task_id)
        return key.decode()

    def _encoded(self, task_id: str, job: Job, text: bytes) -> bytes:
        """Encode a result like `Backend.encode`; the result's JSON is inserted unchanged, however large it is."""
        succeeded = job.state is JobState.SUCCEEDED
        return msgspec.json.encode(
            {
                "status": CELERY_STATES.get(job.state, "FAILURE"),
                "result": msgspec.Raw(text) if succeeded else self._backend.prepare_exception(job.exception),
                "traceback": None,
                "children": [],
                "date_done": datetime.fromtimestamp(job.ended or job.created, UTC).isoformat(),
                "task_id": task_id,
            }
        )
