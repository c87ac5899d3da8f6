"""`POST /webhooks/{provider}/{token}`: receives webhooks. Each is stored first and then answered with exactly 200.

Every webhook with a valid token is answered with 200, readable or not: it is stored as it is, polling finds the truth,
and the same body sent again would be no better. Only if it cannot be stored must the provider send it again.
"""

import asyncio
import logging

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from outwait.web.mailbox import known
from outwait.web.problems import BUG_TITLE, of, problem
from outwait.web.services import services
from outwait.worker.model.errors import StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

TIME_LIMIT = 20.0
"""Seconds within which a webhook must be received in full and stored."""


async def receive(request: Request) -> Response:
    """The route. Its path holds a secret, so no log line and no answer names the path."""
    provider, token = request.path_params["provider"], request.path_params["token"]
    mailbox, encoding = services(request).mailbox, request.headers.get("content-encoding", "")
    try:
        job_id = await mailbox.job_of(provider, token)
        if job_id is None:
            return problem(404, "not_found", "No webhook is expected at this URL")
        async with asyncio.timeout(TIME_LIMIT):
            await mailbox.take(provider, job_id, encoding, request.stream())
    except (StoreUnavailable, StoreRefused) as error:
        level = logging.DEBUG if isinstance(error, StoreUnavailable) else logging.WARNING  # the store logs an outage
        log.log(level, "webhook-not-kept", extra={"provider": known(provider), "error": str(error)})
        return of(StoreUnavailable("the webhook could not be stored; send it again"))
    except (ClientDisconnect, TimeoutError):
        return problem(408, "request_timeout", "The webhook was not received in full, or could not be stored in time")
    except Exception:
        log.exception("webhook-broken", extra={"provider": known(provider)})
        return problem(500, "bug", BUG_TITLE, "The log of the web process has the details.")
    return Response()


# The second path is for senders that append an id of their own to the URL.
router = APIRouter(
    routes=[
        Route(path, receive, methods=["POST"], include_in_schema=False)
        for path in ("/webhooks/{provider}/{token}", "/webhooks/{provider}/{token}/{request_id}")
    ]
)
