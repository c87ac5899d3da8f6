"""Who asks: the API key of a request, and whether it is good for what is asked."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from outwait.web.services import Services, services
from outwait.worker.model.errors import Forbidden, JobNotFound, StoreUnavailable, Unauthenticated
from outwait.worker.model.jobs import Job
from outwait.worker.store.access import ApiKey, Scope

_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key: `outwait keys create` makes one.")


async def authenticate(request: Request) -> ApiKey:
    """The key that the request shows; it is looked up once. Raises Unauthenticated."""
    known: ApiKey | None = getattr(request.state, "key", None)
    if known is not None:
        return known
    shown = await _bearer(request)
    if shown is None:
        raise Unauthenticated("send an API key: Authorization: Bearer ow_…; `outwait keys create NAME` makes one")
    key = await services(request).access.find(shown.credentials)
    if key is None:
        raise Unauthenticated("this API key is unknown or was revoked")
    request.state.key = key
    return key


async def still_good(request: Request) -> bool:
    """Whether the key that opened a long answer is good yet; while the store is away nobody can say that it is not."""
    shown = await _bearer(request)
    try:
        return shown is not None and await services(request).access.find(shown.credentials) is not None
    except StoreUnavailable:
        return True


async def caller(
    request: Request,
    _shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # tells the document of it
) -> ApiKey:
    """The key that the request shows. Raises Unauthenticated."""
    return await authenticate(request)


def needs(scope: Scope) -> Callable[[ApiKey], Awaitable[ApiKey]]:
    """A dependency that gives the caller's key if it has this scope."""

    async def check(key: Annotated[ApiKey, Depends(caller)]) -> ApiKey:
        if scope not in key.scopes:
            have = ", ".join(sorted(key.scopes)) or "none"
            raise Forbidden(f"the API key {key.name!r} has not the scope {scope} (it has {have})")
        return key

    return check


def need_whole(key: ApiKey) -> None:
    """What all tenants share is for keys without one. Raises Forbidden."""
    if key.tenant is not None:
        raise Forbidden(f"the API key {key.name!r} is for the jobs of one tenant only")


def only_own(key: ApiKey, tenant: str | None) -> str | None:
    """The tenant that a request is about: the key's own, or the one it names. Raises Forbidden."""
    if key.tenant is not None and tenant not in {None, key.tenant}:
        raise Forbidden(f"the API key {key.name!r} is for another tenant's jobs")
    return key.tenant or tenant


async def visible(shared: Services, key: ApiKey, job_id: str) -> Job:
    """A job, if the key may know of it. Raises JobNotFound, the same whether it is not there or another tenant's."""
    missing = JobNotFound(f"no job has the id {job_id!r}, or it was purged after its retention")
    try:
        job = await shared.client.job(job_id)
    except JobNotFound:
        raise missing from None
    if key.tenant not in {None, job.tenant}:
        raise missing
    return job


Enqueuer = Annotated[ApiKey, Depends(needs(Scope.ENQUEUE))]
Reader = Annotated[ApiKey, Depends(needs(Scope.READ))]
Operator = Annotated[ApiKey, Depends(needs(Scope.OPERATE))]
