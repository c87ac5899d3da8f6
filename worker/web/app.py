"""The composition root of a web process: its routes, around its shared parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from config.settings import Settings
from worker.web import health, jobs, metrics, pages, problems, webhooks
from worker.web.services import opened


def create(settings: Settings) -> FastAPI:
    """The web application of one process."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(settings) as services:
            app.state.services = services
            yield

    # No interactive pages of FastAPI's: they load their scripts from the Internet.
    app = FastAPI(
        title="Outwait",
        version=version("outwait"),
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(jobs.router)
    app.include_router(webhooks.router)
    pages.install(app)
    return app
