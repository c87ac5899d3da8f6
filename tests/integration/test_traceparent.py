"""A producer's trace context, passed on to the services that get the result, if the operator wants it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from tests.stack import Stack, closed, query

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, list[str | None]]]:
    """The URL of a receiver, and the trace contexts that it gets."""
    got: list[str | None] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request.headers.get("traceparent"))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    yield str(server.make_url("/hook")), got
    await server.close()


@pytest.mark.parametrize("wanted", ["true", "false"])
async def test_it_is_passed_on_only_if_it_is_wanted(
    redis_url: str, tmp_path: Path, receiver: tuple[str, list[str | None]], wanted: str
) -> None:
    url, got = receiver
    variables = {
        "OUTWAIT_WEBHOOKS__SECRETS": "master-secret-of-this-test-with-32-characters",
        "OUTWAIT_OUTBOUND__ALLOW": "127.0.0.1",
        "OUTWAIT_HANDLERS__TRACEPARENT": wanted,
    }
    with Stack(redis_url, tmp_path, options={"behaviour": {"duration": 0.1}}, variables=variables) as stack:
        stack.worker()
        queue = f"outwait-queue:{stack.settings.namespace}"
        async with stack.client() as client, Redis.from_url(redis_url) as redis:
            request = query(targets=[url, f"celery://crm.store?queue={queue}"])
            job = await client.enqueue(request, trace=TRACE)
            await closed(client, job.job_id)
            (message,) = await redis.lrange(queue, 0, -1)
    expected = TRACE if wanted == "true" else None
    assert got == [expected]
    assert json.loads(message)["headers"].get("traceparent") == expected
