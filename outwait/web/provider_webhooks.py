"""`POST /webhooks/{provider}/{token}`: what providers post. It is kept before it is answered, with exactly 200.

Whatever came to a token of ours is answered so, readable or not: it is kept as it is, polling is the safety net, and
sending it again would not mend it. Only a store that is away makes the provider send it again.
"""

import asyncio
import logging

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from outwait.web.mailbox import known
from outwait.web.problems import of, problem
from outwait.web.services import services
from outwait.worker.model.errors import StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

TIME_LIMIT = 20.0
"""Seconds in which a webhook must have come in whole, and be kept."""


async def receive(request: Request) -> Response:
    """The route. Its path holds a secret, so nothing that is logged or answered here names it."""
    provider, token = request.path_params["provider"], request.path_params["token"]
    mailbox, encoding = services(request).mailbox, request.headers.get("content-encoding", "")
    try:
        job_id = await mailbox.job_of(provider, token)
        if job_id is None:
            return problem(404, "not_found", "No webhook is awaited at this address")
        async with asyncio.timeout(TIME_LIMIT):
            await mailbox.take(provider, job_id, encoding, request.stream())
    except (StoreUnavailable, StoreRefused) as error:
        log.warning("webhook-not-kept", extra={"provider": known(provider), "error": str(error)})
        return of(StoreUnavailable("the webhook could not be kept; send it again"))
    except (ClientDisconnect, TimeoutError):
        return problem(408, "request_timeout", "The webhook did not come in whole, or could not be kept in time")
    except Exception:
        log.exception("webhook-broken", extra={"provider": known(provider)})
        return problem(500, "bug", "A bug of Outwait's own", "The log of the web process has the details.")
    return Response()


# The second path is for senders that add an id of their own to the URL that they were given.
router = APIRouter(
    routes=[
        Route(path, receive, methods=["POST"], include_in_schema=False)
        for path in ("/webhooks/{provider}/{token}", "/webhooks/{provider}/{token}/{request_id}")
    ]
)
