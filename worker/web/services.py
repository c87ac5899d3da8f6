"""What the routes of one web process share; built when it starts, closed when it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from config.settings import Settings
from worker.client import Client
from worker.providers.registry import Registry, build
from worker.store.access import Access
from worker.store.connection import Connection
from worker.store.watch import Watch
from worker.web.mailbox import Mailbox


@dataclass(frozen=True)
class Services:
    """Shared parts of one process. `connection` is for reads that the client has no word for."""

    settings: Settings
    registry: Registry
    client: Client
    connection: Connection
    access: Access
    mailbox: Mailbox
    watch: Watch


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Services]:
    """The services, inside the event loop that uses them. Raises ConfigError."""
    registry = build(settings.providers)
    connection = Connection(settings)
    try:
        async with Client(settings, registry) as client, Watch(settings) as watch:
            mailbox = Mailbox(settings, registry, connection)
            yield Services(settings, registry, client, connection, Access(connection), mailbox, watch)
    finally:
        await connection.close()


def services(request: Request) -> Services:
    """Those of the process that answers this request."""
    return cast("Services", request.app.state.services)


Shared = Annotated[Services, Depends(services)]
"""A route's parameter: the shared parts."""
