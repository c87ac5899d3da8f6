"""`/dead`: deliveries that were given up, and receivers that are disabled because they answered 410 Gone."""

import hashlib
import logging
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from outwait.web.actors import caller
from outwait.web.auth import require_all_tenants
from outwait.web.pages.job import replay_dead
from outwait.web.pages.jobs import AGES, since
from outwait.web.pages.rendering import HEADERS, page
from outwait.web.pages.session import Deciding, Operating, Viewer, Viewing
from outwait.web.services import Shared
from outwait.worker.engine.replays import DeadFilter
from outwait.worker.store.receivers import DisabledReceiver

log = logging.getLogger(__name__)

DEAD = 100
"""Dead deliveries on one page."""

router = APIRouter(prefix="/dead", include_in_schema=False)


class DeadQuery(BaseModel):
    """The list's query. A filter that is not valid filters nothing."""

    target: str = ""
    provider: str = ""
    within: str = ""
    cursor: str = ""


@router.get("")
async def dead(request: Request, shared: Shared, viewer: Viewing, query: Annotated[DeadQuery, Query()]) -> Response:
    """The list."""
    filters = _filters(viewer, query.target, query.provider, query.within)
    listed = await shared.client.dead_page(DEAD, query.cursor or None, **filters)
    disabled = await shared.client.disabled_receivers() if viewer.sees_all_tenants else []
    chosen = {"target": query.target.strip(), "provider": query.provider, "within": query.within}
    kept = {name: value for name, value in chosen.items() if value}
    return await page(
        request,
        "dead.html",
        viewer,
        dead=listed.deliveries,
        more=f"/dead?{urlencode(kept | {'cursor': listed.cursor})}" if listed.cursor else None,
        first=f"/dead?{urlencode(kept)}" if query.cursor else None,
        total=await shared.store.statistics.dead() if viewer.sees_all_tenants and not kept else None,
        receivers=[(_name(receiver), receiver) for receiver in disabled],
        providers=shared.registry.names,
        ages=AGES,
        chosen=chosen,
        filtered=bool(kept),
    )


@router.post("/replay")
async def replay(
    shared: Shared,
    viewer: Operating,
    client: Deciding,
    delivery: Annotated[list[str], Form(max_length=DEAD)] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Repeat the chosen deliveries."""
    count = sum([await replay_dead(shared, client, viewer, delivery_id) for delivery_id in delivery])
    return _back(viewer, "replayed", count)


@router.post("/replay-all")
async def replay_all(
    viewer: Operating,
    client: Deciding,
    target: Annotated[str, Form()] = "",
    provider: Annotated[str, Form()] = "",
    within: Annotated[str, Form()] = "",
) -> Response:
    """Repeat all dead deliveries that match the filters."""
    count = await client.replay_all(**_filters(viewer, target, provider, within))
    return _back(viewer, "replayed", count)


@router.post("/enable")
async def enable(shared: Shared, viewer: Operating, client: Deciding, receiver: Annotated[str, Form()]) -> Response:
    """Enable a receiver again."""
    require_all_tenants(viewer.key)
    for disabled in await shared.client.disabled_receivers():
        if _name(disabled) == receiver:
            await client.enable(disabled.url, disabled.tenant)
    return _back(viewer, "enabled", 1)


def _name(receiver: DisabledReceiver) -> str:
    """The name of a tenant's receiver in a form; its URL may hold a secret."""
    return hashlib.sha256(f"{receiver.tenant or ''} {receiver.url}".encode()).hexdigest()[:16]


def _filters(viewer: Viewer, target: str, provider: str, within: str) -> DeadFilter:
    return {
        "target": target.strip() or None,
        "provider": provider or None,
        "since": since(within),
        "tenant": viewer.key.tenant,
    }


def _back(viewer: Viewer, done: str, count: int) -> Response:
    log.info("pressed", extra={"what": done, "count": count, "caller": caller(viewer.key)})
    return RedirectResponse(f"/dead?done={done}&n={count}", 303, HEADERS)
