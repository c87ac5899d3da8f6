"""Authentication and authorisation: the API key of a request, and what it allows."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from outwait.web.client_address import client_address
from outwait.web.services import Services, services
from outwait.worker.model.errors import Forbidden, JobNotFound, StoreUnavailable, Unauthenticated
from outwait.worker.model.jobs import Job
from outwait.worker.store.access import ApiKey, Scope

_bearer = HTTPBearer(
    auto_error=False, scheme_name="ApiKey", description="An API key. `outwait keys create` creates one."
)


async def authenticate(request: Request) -> ApiKey:
    """The API key of the request; it is looked up only once. Raises Unauthenticated or Forbidden."""
    cached: ApiKey | None = getattr(request.state, "key", None)
    if cached is not None:
        return cached
    bearer = await _bearer(request)
    if bearer is None:
        raise Unauthenticated("send an API key (Authorization: Bearer ow_…); `outwait keys create NAME` creates one")
    key = await services(request).access.find(bearer.credentials, client_address(request))
    if key is None:
        raise Unauthenticated("this API key is unknown, was revoked or has expired")
    request.state.key = key
    return key


async def still_valid(request: Request) -> bool:
    """Whether the key that opened a stream is still valid. While the store does not answer, it counts as valid."""
    bearer = await _bearer(request)
    find = services(request).access.find
    try:
        return bearer is not None and await find(bearer.credentials, client_address(request)) is not None
    except StoreUnavailable:
        return True


async def caller(
    request: Request,
    _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # for the OpenAPI document
) -> ApiKey:
    """The API key of the request. Raises Unauthenticated."""
    return await authenticate(request)


def needs(scope: Scope) -> Callable[[ApiKey], Awaitable[ApiKey]]:
    """A dependency that gives the caller's key if it has this scope."""

    async def check(key: Annotated[ApiKey, Depends(caller)]) -> ApiKey:
        if scope not in key.scopes:
            have = ", ".join(sorted(key.scopes)) or "none"
            raise Forbidden(f"the API key {key.name!r} lacks the scope {scope} (it has {have})")
        return key

    return check


def require_all_tenants(key: ApiKey) -> None:
    """Refuse a key of one tenant where the data of all tenants is concerned. Raises Forbidden."""
    if key.tenant is not None:
        raise Forbidden(f"the API key {key.name!r} is limited to the jobs of one tenant")


def permitted_tenant(key: ApiKey, tenant: str | None) -> str | None:
    """The tenant of a request: the key's tenant, or else the one that the request names. Raises Forbidden."""
    if key.tenant is not None and tenant not in {None, key.tenant}:
        raise Forbidden(f"the API key {key.name!r} is limited to the jobs of another tenant")
    return key.tenant or tenant


async def visible(shared: Services, key: ApiKey, job_id: str) -> Job:
    """A job, if the key may see it. Raises JobNotFound, with the same text for another tenant's job.

    That one is not even read: how long the answer takes would tell that it exists.
    """
    if key.tenant is not None and not await shared.store.reads.belongs(job_id, key.tenant):
        raise JobNotFound(f"no job has the id {job_id!r}, or it was purged after its retention")
    return await shared.client.job(job_id)


Enqueuer = Annotated[ApiKey, Depends(needs(Scope.ENQUEUE))]
Reader = Annotated[ApiKey, Depends(needs(Scope.READ))]
Operator = Annotated[ApiKey, Depends(needs(Scope.OPERATE))]
KeyMaker = Annotated[ApiKey, Depends(needs(Scope.KEYS))]
