"""Who acts in a request, for the audit trail and the log."""

from typing import Annotated

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from outwait.client.store import StoreClient
from outwait.web.auth import Operator
from outwait.web.services import Shared
from outwait.worker.model.acts import Actor, Via
from outwait.worker.store.access import ApiKey


def address_of(request: HTTPConnection) -> str:
    """The address that the request came from."""
    return request.client.host if request.client else ""


def actor(request: HTTPConnection, key: ApiKey, via: Via) -> Actor:
    """The owner of the key."""
    return Actor(who=key.name, via=via, key=key.id, address=address_of(request), key_tenant=key.tenant or "")


def caller(key: ApiKey) -> str:
    """The key's owner, as log lines name it. A field with `key` in its name would be masked."""
    return f"{key.name} ({key.id})"


async def _deciding(request: Request, shared: Shared, key: Operator) -> StoreClient:
    return shared.client.acting(actor(request, key, Via.HTTP))


Deciding = Annotated[StoreClient, Depends(_deciding)]
"""A route's parameter: the client for what the caller decides."""
