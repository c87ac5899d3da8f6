"""`/dead`: deliveries that were given up, and receivers that said that they are gone."""

import hashlib
import logging
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from outwait.web.auth import need_whole
from outwait.web.pages.job import replay_dead
from outwait.web.pages.jobs import AGES, since
from outwait.web.pages.rendering import HEADERS, page
from outwait.web.pages.session import Operating, Viewer, Viewing
from outwait.web.services import Shared
from outwait.worker.engine.replays import Wanted
from outwait.worker.store.receivers import DisabledReceiver

log = logging.getLogger(__name__)

DEAD = 100
"""Dead deliveries on the page, at most."""

router = APIRouter(prefix="/dead", include_in_schema=False)


@router.get("")
async def dead(
    request: Request, shared: Shared, seen: Viewing, target: str = "", provider: str = "", within: str = ""
) -> Response:
    """The list."""
    found = await shared.client.dead(DEAD, **_wanted(seen, target, provider, within))
    return await page(
        request,
        "dead.html",
        seen,
        dead=found,
        total=await shared.store.statistics.dead() if seen.whole else len(found),
        endpoints=[(_name(one), one) for one in await shared.client.disabled_endpoints()] if seen.whole else [],
        providers=shared.registry.names,
        ages=AGES,
        wanted={"target": target.strip(), "provider": provider, "within": within},
        filtered=bool(target.strip() or provider or within),
    )


@router.post("/replay")
async def replay(
    shared: Shared,
    seen: Operating,
    delivery: Annotated[list[str], Form(max_length=DEAD)] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Repeat the chosen ones."""
    many = sum([await replay_dead(shared, seen, one) for one in delivery])
    return _back(seen.key.name, "replayed", many)


@router.post("/replay-all")
async def replay_all(
    shared: Shared,
    seen: Operating,
    target: Annotated[str, Form()] = "",
    provider: Annotated[str, Form()] = "",
    within: Annotated[str, Form()] = "",
) -> Response:
    """Repeat all that the filters leave."""
    many = await shared.client.replay_all(**_wanted(seen, target, provider, within))
    return _back(seen.key.name, "replayed", many)


@router.post("/enable")
async def enable(shared: Shared, seen: Operating, endpoint: Annotated[str, Form()]) -> Response:
    """Let a receiver that said that it is gone be sent to again."""
    need_whole(seen.key)
    for one in await shared.client.disabled_endpoints():
        if _name(one) == endpoint:
            await shared.client.enable(one.url)
    return _back(seen.key.name, "enabled", 1)


def _name(endpoint: DisabledReceiver) -> str:
    """What a form calls it: its URL may hold a secret."""
    return hashlib.sha256(endpoint.url.encode()).hexdigest()[:16]


def _wanted(seen: Viewer, target: str, provider: str, within: str) -> Wanted:
    return {
        "target": target.strip() or None,
        "provider": provider or None,
        "since": since(within),
        "tenant": seen.key.tenant,
    }


def _back(key: str, done: str, many: int) -> Response:
    log.info("pressed", extra={"what": done, "many": many, "key": key})
    return RedirectResponse(f"/dead?done={done}&n={many}", 303, HEADERS)
