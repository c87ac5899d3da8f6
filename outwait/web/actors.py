"""Who acts in a request, for the audit trail and the log."""

from typing import Annotated

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from outwait.client.store import StoreClient
from outwait.web.auth import KeyMaker, Operator
from outwait.web.client_address import client_address
from outwait.web.services import Shared
from outwait.worker.model.acts import Actor, Via
from outwait.worker.model.api_keys import ApiKey


def actor(request: HTTPConnection, key: ApiKey, via: Via) -> Actor:
    """The owner of the key."""
    return Actor(who=key.name, via=via, key=key.id, address=client_address(request), key_tenant=key.tenant or "")


def caller(key: ApiKey) -> str:
    """The key's owner, as log lines name it. A field with `key` in its name would be masked."""
    return f"{key.name} ({key.id})"


async def _deciding(request: Request, shared: Shared, key: Operator) -> StoreClient:
    return shared.client.acting(actor(request, key, Via.HTTP))


Deciding = Annotated[StoreClient, Depends(_deciding)]
"""A route's parameter: the client for what the caller decides."""


async def _making_keys(request: Request, shared: Shared, key: KeyMaker) -> StoreClient:
    return shared.client.acting(actor(request, key, Via.HTTP))


MakingKeys = Annotated[StoreClient, Depends(_making_keys)]
"""The same for a caller who makes and revokes keys."""
