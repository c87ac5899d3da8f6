"""The OpenAPI document: what generators of clients make of it."""

import asyncio
from typing import Any

import httpx
import pytest

from outwait.config.settings import Settings
from outwait.web.app import create

DOCUMENT: dict[str, Any] = create(Settings(_env_file=None)).openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_field_has_the_keyword_default_which_typescript_takes_for_required(name: str) -> None:
    for field, schema in SCHEMAS[name].get("properties", {}).items():
        assert "default" not in schema, field


def test_a_request_needs_what_has_no_default_and_tells_the_others() -> None:
    request = SCHEMAS["JobRequest"]
    assert request["required"] == ["provider", "operation"]
    assert request["properties"]["priority"]["description"].endswith("Default: 5.")


def test_a_stream_of_events_is_a_text_for_clients_and_an_event_is_described() -> None:
    content = DOCUMENT["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    assert content["text/event-stream"]["schema"] == {}
    assert content["text/event-stream"]["itemSchema"]["required"] == ["event", "data"]


def test_a_browser_is_told_why_it_may_not_call_when_no_origin_is_configured() -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create(Settings(_env_file=None)))
        async with httpx.AsyncClient(transport=transport, base_url="http://outwait.example") as browser:
            headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
            return await browser.options("/v1/jobs", headers=headers)

    refused = asyncio.run(ask())
    assert (refused.status_code, refused.json()["code"]) == (403, "cors_refused")
    assert "OUTWAIT_WEB__CORS_ORIGINS" in refused.json()["detail"]
    assert refused.headers["x-request-id"]
    assert "access-control-allow-origin" not in refused.headers
