"""Waiting for a job: long polls, and the timeline as server-sent events. Redis notifies; it is not polled."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse

from outwait.web.answers import REF, Event, documented, numbered, shown_job
from outwait.web.auth import Reader, still_valid, visible
from outwait.web.routing import ApiRoute, JobId
from outwait.web.services import Services, Shared
from outwait.worker.model.errors import JobNotFound, StoreUnavailable

log = logging.getLogger(__name__)

HEARTBEAT = 15.0
"""Seconds without an event after which a comment is sent, so that no proxy closes the stream."""

RETRY = 1000
"""Milliseconds after which a browser reconnects to a broken stream."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=ApiRoute)

_DATA = {"oneOf": [{"$ref": REF.format(name=name)} for name in ("Event", "Job")]}
_ITEM = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The value for Last-Event-ID."},
        "event": {"enum": ["message", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _DATA},
    },
    "required": ["event", "data"],
}
# With the item as the `schema`, generated clients read the whole stream as one JSON object, and raise.
_STREAM: dict[str, Any] = {
    "description": "A stream of events. Each has an `id`, and an Event as its `data`. The last event is named `end`, "
    "and its `data` is the Job. `itemSchema` (OpenAPI 3.2) is that of one event; to generated clients it is a text.",
    "content": {"text/event-stream": {"schema": {}, "itemSchema": _ITEM}},
}
_GONE = {"description": "The job is closed, and no event follows the one that Last-Event-ID names."}


@router.get(
    "/{job_id}/events",
    operation_id="followJob",
    responses=documented({"type": "string"}, 404, 429) | {200: _STREAM, 204: _GONE},
    response_class=StreamingResponse,
)
async def follow(
    job_id: JobId,
    request: Request,
    shared: Shared,
    key: Reader,
    last_event_id: Annotated[
        str, Header(max_length=60, description="The id of the last event that was received.")
    ] = "",
) -> Response:
    """The job's timeline as a live stream, until the job is closed. It continues after `Last-Event-ID`."""
    job = await visible(shared, key, job_id)
    if job.closed and not _after(last_event_id, await _events(shared, job.id)):
        return Response(status_code=204)

    shared.waiting.check(key)

    async def key_valid() -> bool:
        return await still_valid(request)

    async def counted() -> AsyncIterator[bytes]:
        with shared.waiting.place(key):
            async for part in _stream(shared, job.id, last_event_id, key_valid):
                yield part

    return StreamingResponse(counted(), media_type="text/event-stream")


async def _stream(
    shared: Services, job_id: str, last: str, key_valid: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
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
                log.debug("stream-waits", extra={"job": job_id})  # `changed` is set when Redis is back
            except JobNotFound:
                return
            if not await _changed_within(changed, HEARTBEAT):
                if not await key_valid():
                    return
                yield b": still there\n\n"


async def _events(shared: Services, job_id: str) -> list[Event]:
    return numbered(await shared.store.reads.timeline(job_id))


def _after(last: str, events: list[Event]) -> list[Event]:
    """The events after the one with this id; all events if no event has it."""
    known = [event.id for event in events]
    return events[known.index(last) + 1 :] if last in known else events


async def _changed_within(changed: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    return True
