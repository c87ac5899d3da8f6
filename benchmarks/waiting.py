"""Jobs that wait for their next poll, written straight through the store: as they stand after their first poll."""

import random
import time
from collections.abc import Iterator
from uuid import UUID

import msgspec

from outwait.config.settings import Settings
from outwait.worker.engine.acceptance import Acceptance
from outwait.worker.model.jobs import JobRequest
from outwait.worker.model.outcomes import NO_FENCE, Submitted, Wait
from outwait.worker.providers.registry import build
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes, NewJob

BATCH = 500
"""Jobs in one round trip."""

START, PACE = 4.0, 25_000
"""Seconds for a worker to start, and jobs written a second: the first is due when all are written and the worker runs,
so that it finds no backlog."""

WEEK = 7 * 86400
"""Deadline of every job, in seconds: none ends while it is measured."""

REQUEST = JobRequest(
    provider="unless",
    operation="query",
    params={"query": "What does it cost to wait?", "sessionId": "session-1", "visitorId": "visitor-1"},
    targets=["crm"],
    deadline=WEEK,
)
"""A job with small parameters."""


def ids(number: int) -> list[str]:
    """The jobs' ids: as long as Celery's, and the same again each time. Their external ids are the same."""
    return [str(UUID(int=value)) for value in range(number)]


async def seed(settings: Settings, number: int) -> None:
    """Make jobs, submitted and never polled; `spread` says when they are due."""
    connection = Connection(settings)
    lanes = Lanes(connection)
    model = _model(settings)
    for group in _groups(ids(number)):
        await lanes.enqueue([msgspec.structs.replace(model, id=job_id) for job_id in group])
        await lanes.record(
            [
                Submitted(work_id=job_id, fence=NO_FENCE, external_id=job_id, countdown_ms=WEEK * 1000, submits=1)
                for job_id in group
            ]
        )
    await connection.close()


async def spread(settings: Settings, number: int, *, over: float) -> None:
    """Make jobs due evenly over `over` seconds, as after a poll each; what a worker leased is taken from it."""
    connection = Connection(settings)
    first = time.monotonic() + START + number / PACE
    lanes = Lanes(connection)
    for group in _groups(ids(number)):
        left = max(0.0, first - time.monotonic())
        due = [int(1000 * (left + random.uniform(0, over))) for _ in group]
        await lanes.record(
            [
                Wait(work_id=job_id, fence=NO_FENCE, countdown_ms=at, status="PENDING", polls=1)
                for job_id, at in zip(group, due, strict=True)
            ]
        )
    await connection.close()


def _model(settings: Settings) -> NewJob:
    checks = Acceptance(build(settings.providers), settings)
    return checks.job("model", REQUEST)


def _groups(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]
