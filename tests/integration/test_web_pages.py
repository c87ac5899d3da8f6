"""The pages of an application in this process: https, an empty store, many jobs, a store that is away."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from outwait.client.store import StoreClient
from outwait.config.http_groups import WebSettings
from outwait.config.settings import Settings
from outwait.web.app import create
from outwait.web.pages.dead import DEAD
from outwait.web.pages.jobs import JOBS
from outwait.worker.local.embedded import free_port
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes
from outwait.worker.store.provider_webhooks import Webhook
from outwait.worker.store.receivers import Receivers
from tests.hands import Hands
from tests.stack import query


@asynccontextmanager
async def visitor(settings: Settings, url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = create(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url=url,
            headers={"accept": "text/html,*/*;q=0.8"},
        ) as client,
    ):
        yield client


async def test_behind_https_the_cookie_is_for_this_host_and_https_alone(
    settings: Settings, connection: Connection
) -> None:
    public = settings.model_copy(update={"web": WebSettings(public_url="https://jobs.example")})
    key = (await Access(connection).create("ada", {Scope.READ})).text
    # As a proxy passes it on that ended the TLS: plain HTTP, under a name of the inside.
    async with visitor(public, "http://web.internal:8080") as client:
        elsewhere = await client.post("/login", data={"key": key}, headers={"origin": "https://evil.example"})
        assert elsewhere.status_code == 403
        answer = await client.post("/login", data={"key": key}, headers={"origin": "https://jobs.example"})
        assert answer.status_code == 303
        name, *attributes = answer.headers["set-cookie"].split("; ")
        assert name.startswith("__Host-outwait=")
        assert {"Secure", "HttpOnly", "Path=/"} <= set(attributes)
        assert not any(attribute.lower().startswith("domain") for attribute in attributes)


async def logged_in(client: httpx.AsyncClient, connection: Connection) -> None:
    key = (await Access(connection).create("ada", set(Scope))).text
    assert (await client.post("/login", data={"key": key})).status_code == 303


async def test_pages_of_an_empty_store_say_what_to_do_next(settings: Settings, connection: Connection) -> None:
    async with visitor(settings, "http://127.0.0.1:8080") as client:
        await logged_in(client, connection)
        for path, message in {
            "/": "outwait submit",
            "/jobs": "outwait submit",
            "/jobs?state=failed": "show all jobs",
            "/held": "There are no held jobs",
            "/dead": "There are no dead deliveries",
            "/providers": "Pause…",
        }.items():
            page = await client.get(path)
            assert page.status_code == 200, path
            assert message in page.text, path


async def test_older_jobs_are_on_the_next_page_and_filters_stay(settings: Settings, connection: Connection) -> None:
    async with StoreClient(settings) as jobs:
        await jobs.enqueue_many([(query(str(number)), f"job-{number}") for number in range(JOBS + 10)])
    async with visitor(settings, "http://127.0.0.1:8080") as client:
        await logged_in(client, connection)
        first = (await client.get("/jobs?provider=unless&state=queued&within=3600")).text
        older = re.search(r'href="(/jobs\?[^"]*cursor=[^"]*)"', first)
        assert older
        address = html.unescape(older[1])
        assert "provider=unless" in address
        second = (await client.get(address)).text
        shown = [re.findall(r'href="/jobs/(job-\d+)"', page) for page in (first, second)]
        assert [len(page) for page in shown] == [JOBS, 10]
        assert len({*shown[0], *shown[1]}) == JOBS + 10
        assert "cursor=" not in second
        assert 'data-refresh="5"' not in second


async def test_every_dead_delivery_is_on_a_page_and_filters_stay(settings: Settings, connection: Connection) -> None:
    keys = dict.fromkeys(("api_key", "user_email", "account_id", "website_id"), "k")
    hands = Hands(settings.model_copy(update={"providers": {"unless": keys}}), connection)
    await hands.dead("crm", *(f"job-{number}" for number in range(DEAD + 10)))
    async with visitor(settings, "http://127.0.0.1:8080") as client:
        await logged_in(client, connection)
        assert f"the newest {DEAD} of {DEAD + 10}" in (await client.get("/dead")).text
        first = (await client.get("/dead?provider=unless&target=crm")).text
        older = re.search(r'href="(/dead\?[^"]*cursor=[^"]*)"', first)
        assert older
        address = html.unescape(older[1])
        assert {"provider=unless", "target=crm"} <= set(address.partition("?")[2].split("&"))
        second = (await client.get(address)).text
        shown = [re.findall(r'href="/jobs/(job-\d+)"', page) for page in (first, second)]
        assert [len(page) for page in shown] == [DEAD, 10]
        assert len({*shown[0], *shown[1]}) == DEAD + 10
        assert "cursor=" not in second
        assert (await client.get("/dead?cursor=rubbish")).status_code == 422


async def test_a_receiver_that_is_gone_is_shown_and_enabled(settings: Settings, connection: Connection) -> None:
    receivers = Receivers(connection)
    await receivers.disable("https://crm.example/hooks/s3cret", "410 Gone")
    async with visitor(settings, "http://127.0.0.1:8080") as client:
        await logged_in(client, connection)
        assert "1 receiver" in (await client.get("/")).text
        page = (await client.get("/dead")).text.replace("<wbr>", "")
        assert "https://crm.example/…" in page
        assert "s3cret" not in page
        form = dict(re.findall(r'name="(csrf|receiver)" value="([0-9a-f]+)"', page))
        assert (await client.post("/dead/enable", data=form)).status_code == 303
    assert await receivers.all() == []


async def test_a_receiver_is_enabled_for_one_tenant(settings: Settings, connection: Connection) -> None:
    receivers = Receivers(connection)
    for tenant in ("acme", "globex"):
        await receivers.disable("https://crm.example/hook", "410 Gone", tenant)
    async with visitor(settings, "http://127.0.0.1:8080") as client:
        await logged_in(client, connection)
        page = (await client.get("/dead")).text
        (row,) = re.findall(r'<span class="tenant">acme</span>.*?</form>', page, re.DOTALL)
        form = dict(re.findall(r'name="(csrf|receiver)" value="([0-9a-f]+)"', row))
        assert (await client.post("/dead/enable", data=form)).status_code == 303
    assert [each.tenant for each in await receivers.all()] == ["globex"]


async def test_a_webhook_is_shown_as_text_and_without_its_urls(settings: Settings, connection: Connection) -> None:
    async with StoreClient(settings) as jobs:
        await jobs.enqueue(query(), job_id="heard")
        body = b'{"note": "<script>1</script>", "see": "https://media.example/s3cret?access_token=s3cret"}'
        await Lanes(connection).record(
            [jobs.webhooks.webhook_received(Webhook("ringcentral", "heard", body, len(body)))]
        )
    async with visitor(settings, "http://127.0.0.1:8080") as client:
        await logged_in(client, connection)
        page = (await client.get("/jobs/heard")).text
        assert f"{len(body)} bytes" in page
        assert "&lt;script&gt;1&lt;/script&gt;" in page
        assert "https://media.example/…" in page
        assert "s3cret" not in page


async def test_while_the_store_is_away_a_page_says_so() -> None:
    away = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0", _env_file=None)
    async with visitor(away, "http://127.0.0.1:8080") as client:
        page = await client.get("/jobs", headers={"cookie": "outwait=something"})
        assert page.status_code == 503
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["retry-after"] == "5"
        assert "The store does not answer" in page.text
        assert (await client.get("/login")).status_code == 200
        assert (await client.post("/login", data={"key": "ow_00000000_" + "x" * 43})).status_code == 503
