"""`/jobs/{id}`: one job's facts, timeline, deliveries and webhooks, and the buttons for it."""

import asyncio
import contextlib
import logging
import time
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.config.masking import masked_url
from outwait.web.auth import visible
from outwait.web.pages import timeline
from outwait.web.pages.rendering import HEADERS, page, pretty
from outwait.web.pages.session import Operating, Viewer, Viewing
from outwait.web.services import Services, Shared
from outwait.worker.model.errors import InvalidRequest, JobNotFound, NotReplayable
from outwait.worker.model.jobs import DeliveryState, Job, JobState
from outwait.worker.model.outcomes import Choice
from outwait.worker.net.redaction import presentable, redact
from outwait.worker.store.provider_webhooks import Webhook

log = logging.getLogger(__name__)

SHOWN = 20_000
"""Characters of a result that its job's page shows."""

PRETTY = 200_000
"""Bytes of a result above which it is shown as it is stored, in one line."""

HOOK_SHOWN = 2_000
"""Characters of a webhook's body that are shown."""

router = APIRouter(prefix="/jobs/{job_id}", include_in_schema=False)


class Text(NamedTuple):
    """A text as a page shows it, and the bytes that it has in full."""

    text: str
    size: int
    cut: bool


@router.get("")
async def job(request: Request, shared: Shared, seen: Viewing, job_id: str) -> Response:
    """The page."""
    found = await visible(shared, seen.key, job_id)
    entries, deliveries, webhooks, params, result = await asyncio.gather(
        shared.client.timeline(found.id),
        shared.client.deliveries(found.id),
        shared.client.webhooks.of(found.id),
        _params(shared, found.id),
        _result(shared, found),
    )
    return await page(
        request,
        "job.html",
        seen,
        job=found,
        entries=timeline.entries(entries),
        phases=timeline.phases(found, time.time()),
        took=(found.ended or time.time()) - found.created,
        deliveries=deliveries,
        dead=sum(one.state is DeliveryState.DEAD for one in deliveries),
        webhooks=[(one, _body(one)) for one in webhooks],
        params=None if params is None else pretty(presentable(params)),
        metadata=pretty(presentable(found.metadata)) if found.metadata else None,
        error_detail=_detail(found),
        result=result,
    )


@router.get("/result")
async def result(shared: Shared, seen: Viewing, job_id: str) -> Response:
    """The whole result as JSON."""
    found = await visible(shared, seen.key, job_id)
    if found.state is not JobState.SUCCEEDED:
        raise InvalidRequest(f"job {job_id} has no result: it is {found.state}")
    (text,) = await shared.store.reads.result_texts([found.id])
    return Response(text, headers=HEADERS, media_type="application/json")


@router.post("/cancel")
async def cancel(
    shared: Shared, seen: Operating, job_id: str, reason: Annotated[str, Form(max_length=300)] = ""
) -> Response:
    """Give the job up."""
    found = await visible(shared, seen.key, job_id)
    now = await shared.client.cancel(found.id, f"{reason.strip() or 'cancelled'} (by {seen.key.name})")
    return pressed(seen, "cancel", found.id, "cancelled" if now else "cancel-asked")


@router.post("/resolve")
async def resolve(
    shared: Shared,
    seen: Operating,
    job_id: str,
    choice: Annotated[Choice, Form()],
    external_id: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Decide about an uncertain submit."""
    found = await visible(shared, seen.key, job_id)
    external = external_id.strip() if choice is Choice.SUBMITTED_AS else ""
    await shared.client.resolve(found.id, choice, external)
    return pressed(seen, "resolve", found.id, choice)


@router.post("/replay")
async def replay(shared: Shared, seen: Operating, job_id: str, delivery: Annotated[str, Form()] = "") -> Response:
    """Repeat one delivery, or all dead ones. The provider is not asked again."""
    found = await visible(shared, seen.key, job_id)
    target = await _target(shared, found.id, delivery) if delivery else None
    many = await shared.client.replay(found.id, target)
    return pressed(seen, "replay", found.id, "replayed", many)


async def replay_dead(shared: Services, seen: Viewer, delivery_id: str) -> int:
    """Repeat a delivery if it is still dead; how many were repeated. Raises InvalidRequest if the id is none."""
    job_id, _, number = delivery_id.rpartition("#")
    try:
        found = await visible(shared, seen.key, job_id)
        deliveries = await shared.client.deliveries(found.id)
        (wanted,) = [one for one in deliveries if one.id == f"{found.id}#{number}"]
        return await shared.client.replay(found.id, wanted.target) if wanted.state is DeliveryState.DEAD else 0
    except (JobNotFound, NotReplayable):
        return 0  # purged, or somebody was faster
    except ValueError:
        raise InvalidRequest(f"{delivery_id!r:.80} is no delivery") from None


def pressed(seen: Viewer, what: str, job_id: str, done: str, many: int = 1) -> Response:
    """The way back to the job's page, which says what was done."""
    log.info("pressed", extra={"what": what, "job": job_id, "key": seen.key.name})
    return RedirectResponse(f"/jobs/{quote(job_id)}?done={done}&n={many}", 303, HEADERS)


async def _target(shared: Services, job_id: str, number: str) -> str:
    for one in await shared.client.deliveries(job_id):
        if one.id == f"{job_id}#{number}":
            return one.target
    raise InvalidRequest(f"job {job_id} has no delivery {number!r:.20}")


async def _params(shared: Services, job_id: str) -> dict[str, Any] | None:
    with contextlib.suppress(JobNotFound):
        return await shared.client.params(job_id)
    return None


async def _result(shared: Services, found: Job) -> Text | None:
    if found.state is not JobState.SUCCEEDED:
        return None
    (text,) = await shared.store.reads.result_texts([found.id])
    if len(text) > PRETTY:
        return Text(masked_url(text[:SHOWN].decode(errors="replace")), len(text), cut=True)
    spread = msgspec.json.format(text, indent=2).decode(errors="replace")
    return Text(masked_url(spread[:SHOWN]), len(text), cut=len(spread) > SHOWN)


def _body(webhook: Webhook) -> str:
    text = redact(webhook.body[: 2 * HOOK_SHOWN].decode(errors="replace"))
    return text if len(text) <= HOOK_SHOWN else text[:HOOK_SHOWN] + "…"


def _detail(found: Job) -> str | None:
    if found.error is None or found.error.detail in (None, ""):
        return None
    detail = presentable(found.error.detail)
    return detail if isinstance(detail, str) else pretty(detail)
