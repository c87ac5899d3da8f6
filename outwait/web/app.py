"""The composition root of a web process: its routes and middleware."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from outwait.config.settings import Settings
from outwait.web import (
    audit,
    decisions,
    enqueue,
    health,
    jobs,
    keys,
    metrics,
    openapi,
    pages,
    problems,
    provider_webhooks,
    providers,
    stream,
)
from outwait.web.cors import Cors
from outwait.web.draining import Drain
from outwait.web.front import Front
from outwait.web.limits import BodyLimit
from outwait.web.services import opened


def create(settings: Settings) -> FastAPI:
    """The web application of one process."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(settings) as services:
            app.state.services = services
            yield

    # FastAPI's interactive pages are off: they load their scripts from the Internet.
    app = FastAPI(
        title="Outwait",
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.web = settings.web
    problems.install(app)
    openapi.install(app)
    _guard(app, settings)
    app.include_router(provider_webhooks.router)  # first, so that a burst of webhooks is compared with no other route
    app.include_router(health.router)
    app.include_router(metrics.router)
    for part in (enqueue, stream, jobs, decisions, providers, keys, audit):
        app.include_router(part.router)
    pages.install(app)
    return app


def _guard(app: FastAPI, settings: Settings) -> None:
    """Add the middleware of every route. What is added last runs first."""
    app.add_middleware(BodyLimit, limit=settings.web.body_max)
    app.add_middleware(Cors, origins=settings.web.cors_origins)
    app.add_middleware(Front)
    app.add_middleware(Drain)
