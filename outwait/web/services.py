"""The objects that the routes of one web process share. They are built when it starts and closed when it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.web.connections import affordable
from outwait.web.mailbox import Mailbox
from outwait.web.waiting import Waiting
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.access import Access
from outwait.worker.store.store import Store
from outwait.worker.store.watch import Watch


@dataclass(frozen=True)
class Services:
    """The shared objects of one process. `store` is for reads that the client does not offer."""

    settings: Settings
    registry: Registry
    client: StoreClient
    store: Store
    access: Access
    mailbox: Mailbox
    watch: Watch
    waiting: Waiting


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Services]:
    """Open the services; to be called inside the event loop that uses them. Raises ConfigError."""
    registry = build(settings.providers)
    async with Store.open(settings) as store, StoreClient(settings, registry) as client, Watch(settings) as watch:
        mailbox = Mailbox(store, registry)
        waiting = Waiting(max(1, affordable(settings.web.connections) // 2))
        yield Services(settings, registry, client, store, store.access, mailbox, watch, waiting)


def services(request: Request) -> Services:
    """The services of the process that answers this request."""
    return cast("Services", request.app.state.services)


Shared = Annotated[Services, Depends(services)]
"""A route's parameter: the services."""
