"""`/jobs/{id}`: one job with its timeline, deliveries and webhooks, and its buttons."""

import asyncio
import contextlib
import logging
import time
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.client.store import StoreClient
from outwait.config.masking import cut, masked_url
from outwait.web.actors import caller
from outwait.web.audit import shown_act
from outwait.web.auth import visible
from outwait.web.pages import timeline
from outwait.web.pages.rendering import HEADERS, page, pretty
from outwait.web.pages.session import Deciding, Operating, Viewer, Viewing
from outwait.web.services import Services, Shared
from outwait.worker.model.errors import InvalidRequest, JobNotFound, NotReplayable
from outwait.worker.model.jobs import DeliveryState, Job, JobState
from outwait.worker.model.outcomes import Choice
from outwait.worker.net.redaction import bytes_of, presentable, redact_bytes
from outwait.worker.store.provider_webhooks import Webhook

log = logging.getLogger(__name__)

SHOWN = 20_000
"""Characters of a result that the page shows."""

PRETTY = 200_000
"""Bytes of a result above which it is shown without indentation."""

ACTS = 100
"""Acts of persons that the page shows."""

HOOK_SHOWN = 2_000
"""Characters of a webhook's body that the page shows."""

router = APIRouter(prefix="/jobs/{job_id}", include_in_schema=False)


class Text(NamedTuple):
    """A text as a page shows it, its full size in bytes, and whether it is cut."""

    text: str
    size: int
    cut: bool


@router.get("")
async def job(request: Request, shared: Shared, viewer: Viewing, job_id: str) -> Response:
    """The page."""
    job = await visible(shared, viewer.key, job_id)
    entries, deliveries, webhooks, acts, params, result = await asyncio.gather(
        shared.client.timeline(job.id),
        shared.client.deliveries(job.id),
        shared.client.webhooks.of(job.id),
        shared.store.audit.newest(ACTS, job=job.id),
        _params(shared, job.id),
        _result(shared, job),
    )
    return await page(
        request,
        "job.html",
        viewer,
        job=job,
        entries=timeline.entries(entries),
        phases=timeline.phases(job, time.time()),
        took=(job.ended or time.time()) - job.created,
        deliveries=deliveries,
        acts=[shown_act(act, viewer.key) for act in acts],
        dead=sum(delivery.state is DeliveryState.DEAD for delivery in deliveries),
        webhooks=[(webhook, _body(webhook)) for webhook in webhooks],
        params=None if params is None else pretty(presentable(params)),
        metadata=pretty(presentable(job.metadata)) if job.metadata else None,
        error_detail=_detail(job),
        result=result,
    )


@router.get("/result")
async def result(shared: Shared, viewer: Viewing, job_id: str) -> Response:
    """The whole result as JSON."""
    job = await visible(shared, viewer.key, job_id)
    if job.state is not JobState.SUCCEEDED:
        raise InvalidRequest(f"job {job_id} has no result: it is {job.state}")
    (text,) = await shared.store.reads.result_texts([job.id])
    return Response(text, headers=HEADERS, media_type="application/json")


@router.post("/cancel")
async def cancel(
    shared: Shared, viewer: Operating, client: Deciding, job_id: str, reason: Annotated[str, Form(max_length=300)] = ""
) -> Response:
    """Cancel the job."""
    job = await visible(shared, viewer.key, job_id)
    at_once = await client.cancel(job.id, f"{reason.strip() or 'cancelled'} (by {viewer.key.name})")
    return pressed(viewer, "cancel", job.id, "cancelled" if at_once else "cancel-asked")


@router.post("/resolve")
async def resolve(
    shared: Shared,
    viewer: Operating,
    client: Deciding,
    job_id: str,
    choice: Annotated[Choice, Form()],
    external_id: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Decide what happens to an uncertain job."""
    job = await visible(shared, viewer.key, job_id)
    external = external_id.strip() if choice is Choice.SUBMITTED_AS else ""
    await client.resolve(job.id, choice, external)
    return pressed(viewer, "resolve", job.id, choice)


@router.post("/repoll")
async def repoll(shared: Shared, viewer: Operating, client: Deciding, job_id: str) -> Response:
    """Poll an ended job again. Nothing is submitted."""
    job = await visible(shared, viewer.key, job_id)
    await client.repoll(job.id)
    return pressed(viewer, "repoll", job.id, "repolled")


@router.post("/replay")
async def replay(
    shared: Shared, viewer: Operating, client: Deciding, job_id: str, delivery: Annotated[str, Form()] = ""
) -> Response:
    """Repeat one delivery, or all dead ones. Nothing is sent to the provider."""
    job = await visible(shared, viewer.key, job_id)
    target = await _target(shared, job.id, delivery) if delivery else None
    count = await client.replay(job.id, target)
    return pressed(viewer, "replay", job.id, "replayed", count)


async def replay_dead(shared: Services, client: StoreClient, viewer: Viewer, delivery_id: str) -> int:
    """Repeat a delivery if it is still dead. Returns the number repeated. Raises InvalidRequest for an invalid id."""
    job_id, _, number = delivery_id.rpartition("#")
    try:
        job = await visible(shared, viewer.key, job_id)
        deliveries = await shared.client.deliveries(job.id)
        (delivery,) = [delivery for delivery in deliveries if delivery.id == f"{job.id}#{number}"]
        return await client.replay(job.id, delivery.target) if delivery.state is DeliveryState.DEAD else 0
    except (JobNotFound, NotReplayable):
        return 0  # it was purged, or another person repeated it first
    except ValueError:
        raise InvalidRequest(f"there is no delivery {delivery_id!r:.80}") from None


def pressed(viewer: Viewer, what: str, job_id: str, done: str, count: int = 1) -> Response:
    """Log a decision, and redirect to the job's page, which says what was done."""
    log.info("pressed", extra={"what": what, "job": job_id, "caller": caller(viewer.key)})
    return RedirectResponse(f"/jobs/{quote(job_id)}?done={done}&n={count}", 303, HEADERS)


async def _target(shared: Services, job_id: str, number: str) -> str:
    for delivery in await shared.client.deliveries(job_id):
        if delivery.id == f"{job_id}#{number}":
            return delivery.target
    raise InvalidRequest(f"job {job_id} has no delivery {number!r:.20}")


async def _params(shared: Services, job_id: str) -> dict[str, Any] | None:
    with contextlib.suppress(JobNotFound):
        return await shared.client.params(job_id)
    return None


async def _result(shared: Services, job: Job) -> Text | None:
    if job.state is not JobState.SUCCEEDED:
        return None
    (text,) = await shared.store.reads.result_texts([job.id])
    if len(text) > PRETTY:
        return Text(masked_url(cut(text[: bytes_of(SHOWN)].decode(errors="replace"), SHOWN)), len(text), cut=True)
    indented = msgspec.json.format(text, indent=2).decode(errors="replace")
    return Text(masked_url(cut(indented, SHOWN)), len(text), cut=len(indented) > SHOWN)


def _body(webhook: Webhook) -> str:
    text = redact_bytes(webhook.body, 2 * HOOK_SHOWN)
    return text if len(text) <= HOOK_SHOWN else text[:HOOK_SHOWN] + "…"


def _detail(job: Job) -> str | None:
    if job.error is None or job.error.detail in (None, ""):
        return None
    detail = presentable(job.error.detail)
    return detail if isinstance(detail, str) else pretty(detail)
