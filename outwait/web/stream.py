"""Waiting for a job: long polls, and its timeline as server-sent events. Nobody asks Redis again and again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse

from outwait.web.answers import REF, Event, documented, numbered, shown_job
from outwait.web.auth import Reader, still_good, visible
from outwait.web.routing import ApiRoute, JobId
from outwait.web.services import Services, Shared
from outwait.worker.model.errors import JobNotFound, StoreUnavailable

log = logging.getLogger(__name__)

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy takes a stream for dead."""

RETRY = 1000
"""Milliseconds after which a browser comes back to a stream that broke."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ApiRoute)

_SAID = {"oneOf": [{"$ref": REF.format(name=name)} for name in ("Event", "Job")]}
_ITEM = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "What Last-Event-ID takes."},
        "event": {"enum": ["message", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _SAID},
    },
    "required": ["event", "data"],
}
_STREAM: dict[str, Any] = {
    "description": "A stream of events: each has an `id` and an Event as its `data`; the last one is named `end` and "
    "has the Job. The schema is that of one event.",
    "content": {"text/event-stream": {"schema": _ITEM}},
}
_GONE = {"description": "Nothing followed the event that Last-Event-ID names: the job is closed."}


@router.get(
    "/{job_id}/events",
    operation_id="followJob",
    responses=documented({"type": "string"}, 404) | {200: _STREAM, 204: _GONE},
    response_class=StreamingResponse,
)
async def follow(
    job_id: JobId,
    request: Request,
    shared: Shared,
    key: Reader,
    last_event_id: Annotated[str, Header(max_length=60, description="The id of the last event that came.")] = "",
) -> Response:
    """The job's timeline as it is written, until the job is closed. It goes on after `Last-Event-ID`."""
    job = await visible(shared, key, job_id)
    if job.closed and not _after(last_event_id, await _events(shared, job.id)):
        return Response(status_code=204)

    async def good() -> bool:
        return await still_good(request)

    return StreamingResponse(_told(shared, job.id, last_event_id, good), media_type="text/event-stream")


async def _told(shared: Services, job_id: str, last: str, good: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY}\n\n".encode()
    async with shared.watch.on(job_id) as changed:
        while not shared.watch.over:
            changed.clear()
            try:
                job = await shared.client.job(job_id)
                for event in _after(last, await _events(shared, job_id)):
                    yield b"id: %b\ndata: %b\n\n" % (event.id.encode(), msgspec.json.encode(event))
                    last = event.id
                if job.closed:
                    yield b"event: end\ndata: %b\n\n" % msgspec.json.encode(shown_job(job))
                    return
            except StoreUnavailable:
                log.info("stream-waits", extra={"job": job_id})  # `changed` is set when Redis is back
            except JobNotFound:
                return
            if not await _heard(changed, HEARTBEAT):
                if not await good():
                    return
                yield b": still there\n\n"


async def _events(shared: Services, job_id: str) -> list[Event]:
    return numbered(await shared.store.reads.timeline(job_id))


def _after(last: str, events: list[Event]) -> list[Event]:
    """What follows an event; one that was cut off, or is none of ours, comes before them all."""
    known = [event.id for event in events]
    return events[known.index(last) + 1 :] if last in known else events


async def _heard(changed: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    return True
