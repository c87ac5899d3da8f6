"""Who asks: the API key of a request, and whether it is good for what is asked."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from worker.errors import Forbidden, Unauthenticated
from worker.store.access import ApiKey, Scope
from worker.web.services import Shared

_bearer = HTTPBearer(auto_error=False, description="An API key, made by `outwait keys create`.")


async def caller(
    shared: Shared, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
) -> ApiKey:
    """The key that the request shows. Raises Unauthenticated."""
    if shown is None:
        raise Unauthenticated("send an API key: Authorization: Bearer ow_…; `outwait keys create NAME` makes one")
    key = await shared.access.find(shown.credentials)
    if key is None:
        raise Unauthenticated("this API key is unknown or was revoked")
    return key


def needs(scope: Scope) -> Callable[[ApiKey], Awaitable[ApiKey]]:
    """A dependency that gives the caller's key if it has this scope."""

    async def check(key: Annotated[ApiKey, Depends(caller)]) -> ApiKey:
        if scope not in key.scopes:
            have = ", ".join(sorted(key.scopes)) or "none"
            raise Forbidden(f"the API key {key.name!r} has not the scope {scope} (it has {have})")
        return key

    return check


Enqueuer = Annotated[ApiKey, Depends(needs(Scope.ENQUEUE))]
Reader = Annotated[ApiKey, Depends(needs(Scope.READ))]
Operator = Annotated[ApiKey, Depends(needs(Scope.OPERATE))]
