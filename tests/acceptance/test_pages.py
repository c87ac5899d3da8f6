"""The pages as people use them: a real Chromium before a real web process, a worker and the sandbox."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from outwait.client.store import StoreClient
from outwait.worker.model.jobs import JobError, JobState
from outwait.worker.store import codec
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from outwait.worker.store.lanes import Lanes, NewJob
from tests.browser import chromium
from tests.patience import PATIENCE
from tests.stack import Stack, closed, ended, query, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEAD_LONG = "0c9f0e6a-5214-4f5e-9d57-0c2f3a5d8b11"
LONG_TARGET = "notices-customers_of_the_northern_department-escalations"
CANARY = "<script>document.title='caught'</script>"
LOST = {"faults": [{"fault": "drop_after", "on": "submit"}]}
NEVER = {"outcome": "never"}
HANDLERS = f"""
from pathlib import Path

from outwait import Envelope, handler
from outwait.worker.model.errors import DeliveryRefused

@handler("crm")
def crm(envelope: Envelope) -> None:
    if not Path(__file__).with_name("crm-is-back").exists():
        raise DeliveryRefused("the CRM is away")

@handler("{LONG_TARGET}")
def long(envelope: Envelope) -> None:
    raise DeliveryRefused("the department answered that it takes no results of this kind before the end of the month")

@handler("broken")
def broken(envelope: Envelope) -> None:
    raise DeliveryRefused("broken {CANARY}")
"""


class Site:
    """The stack, its client, and an API key of each kind."""

    def __init__(self, stack: Stack, client: StoreClient, connection: Connection) -> None:
        self.stack = stack
        self.client = client
        self.url = stack.web_url
        self.connection = connection
        self.access = Access(connection)
        self.keys: dict[str, str] = {}

    async def make_keys(self) -> None:
        for name, scopes, tenant in (
            ("ada", set(Scope), None),
            ("reader", {Scope.READ}, None),
            ("acme", {Scope.READ, Scope.OPERATE}, "acme"),
            ("producer", {Scope.ENQUEUE}, None),
        ):
            self.keys[name] = (await self.access.create(name, scopes, tenant)).text

    async def enqueue(self, job_id: str, **fields: Any) -> str:
        order = fields.pop("order", {})
        return (
            await self.client.enqueue(query(f"{job_id} sandbox:{json.dumps(order)}", **fields), job_id=job_id)
        ).job_id

    async def becomes(self, job_id: str, state: JobState) -> None:
        async def look() -> bool:
            return (await self.client.job(job_id)).state is state

        await until(look, what=f"{job_id} is {state}")

    def visitor(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"accept": "text/html"}, **options)

    @asynccontextmanager
    async def logged_in(self, who: str) -> AsyncIterator[httpx.AsyncClient]:
        async with self.visitor() as visitor:
            answer = await visitor.post("/login", data={"key": self.keys[who]})
            assert answer.status_code == 303, answer.text
            yield visitor


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "pages_handlers.py").write_text(HANDLERS)
    variables = {
        "OUTWAIT_HANDLERS__MODULES": "pages_handlers",
        "OUTWAIT_WEB__FLOWER_URL": "http://flower.example:5555",
        "OUTWAIT_PROVIDERS__RINGCENTRAL__RATE_LIMIT": "50",
    }
    with Stack(redis_url, folder, options={"behaviour": {"duration": 0.2}}, variables=variables) as running:
        running.web()
        running.worker()
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(stack: Stack) -> AsyncIterator[Site]:
    """Jobs in every state that people meet, written once."""
    connection = Connection(stack.settings)
    async with stack.client() as client:
        site = Site(stack, client, connection)
        await site.make_keys()
        await site.enqueue("dead-one", targets=["crm"], idempotency_key="order 4711", metadata={"note": CANARY})
        await site.enqueue("dead-for-good", targets=["broken"])
        await site.enqueue("dead-of-globex", targets=["crm"], tenant="globex")
        await site.enqueue(DEAD_LONG, targets=[LONG_TARGET])
        await site.enqueue("done-of-acme", tenant="acme", order={"result_bytes": 60_000})
        for name in ("lost-one", "lost-two", "lost-three"):
            await site.enqueue(name, order=LOST)
        for name in ("waiting-one", "waiting-two", "waiting-three"):
            await site.enqueue(name, order=NEVER)
        await site.enqueue("failed-one", order={"outcome": "failure"})
        error = JobError("invalid_request", f"there is no provider {CANARY}").text()
        refused = NewJob(
            id="refused-one",
            provider=CANARY,
            operation=CANARY,
            digest="digest",
            spec=codec.blob(b"{}", 1024),
            error=error,
        )
        await Lanes(connection).enqueue([refused])
        for name in ("dead-one", "dead-for-good", "dead-of-globex", "done-of-acme", "failed-one", DEAD_LONG):
            await closed(client, name)
        for name in ("lost-one", "lost-two", "lost-three"):
            await site.becomes(name, JobState.UNCERTAIN)
        yield site
    await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


class Person:
    """Somebody before a browser window; what the browser complains of is remembered."""

    def __init__(self, context: BrowserContext, page: Page, site: Site) -> None:
        self.context = context
        self.page = page
        self.site = site
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complain(message.type, message.text))
        page.on("pageerror", lambda error: self.complain("error", str(error)))

    def complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {text}")

    async def log_in(self, key: str) -> None:
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Log in").click()

    async def open(self, path: str) -> None:
        await self.page.goto(self.site.url + path)


async def somebody(browser: Browser, site: Site, **options: Any) -> Person:
    """A fresh window of a person who is logged in."""
    context = await browser.new_context(**options)
    context.set_default_timeout(1000 * PATIENCE)
    person = Person(context, await context.new_page(), site)
    await person.open("/")
    await person.log_in(site.keys["ada"])
    await expect(person.page.get_by_role("heading", name="Needs a person")).to_be_visible()
    return person


async def test_a_dead_delivery_is_found_read_and_replayed(site: Site, browser: Browser) -> None:
    person = await somebody(browser, site)
    page = person.page
    await page.get_by_label("Find a job").fill("order 4711")
    await page.get_by_role("button", name="Find").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("dead-one")
    timeline = page.get_by_role("region", name="Timeline").get_by_role("listitem")
    for event in ("enqueued", "submitted", "succeeded", "dead", "closed"):
        await expect(timeline.filter(has_text=event).first).to_be_visible()
    deliveries = page.get_by_role("region", name="Deliveries")
    await expect(deliveries).to_contain_text("the CRM is away")
    (site.stack.folder / "crm-is-back").touch()
    await deliveries.get_by_text("Replay…").click()
    await deliveries.get_by_role("button", name="Replay to crm").click()
    await expect(page.get_by_role("status")).to_contain_text("Nothing is sent to the provider again")
    # The page keeps itself fresh: nobody reloads it.
    await expect(deliveries).to_contain_text("delivered")
    assert (await site.client.job("dead-one")).ledger.submits == 1
    assert person.complaints == []
    await person.context.close()


async def test_several_dead_deliveries_are_replayed_at_once(site: Site, browser: Browser) -> None:
    person = await somebody(browser, site)
    await person.open("/dead")
    row = person.page.get_by_role("row").filter(has_text="dead-of-globex")
    await row.get_by_role("checkbox").check()
    await person.page.get_by_role("button", name="Replay the selected deliveries").click()
    await expect(person.page.get_by_role("status")).to_contain_text("One delivery will be repeated")
    await closed(site.client, "dead-of-globex")
    await person.context.close()


async def test_a_held_job_is_resolved(site: Site, browser: Browser) -> None:
    person = await somebody(browser, site)
    page = person.page
    await page.get_by_role("link", name="uncertain jobs").click()
    article = page.get_by_role("article").filter(has_text="lost-one")
    await article.get_by_text("The provider does not have the job: submit and pay again…").click()
    await expect(article).to_contain_text("Outwait submits the job again, and unless bills that.")
    await article.get_by_text("The provider has the job…").click()
    (external,) = [job["id"] for job in site.stack.seen("lost-one")]
    await article.get_by_label("Id at unless").fill(external)
    await article.get_by_role("button", name="Wait for this job").click()
    await expect(page.get_by_role("status")).to_contain_text("waits for its result")
    assert (await ended(site.client, "lost-one")).state is JobState.SUCCEEDED
    assert len(site.stack.seen("lost-one")) == 1
    await expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
    await person.open("/jobs/lost-two")
    await page.get_by_text("Give the job up…").click()
    await page.get_by_role("button", name="Fail the job").click()
    assert (await ended(site.client, "lost-two")).state is JobState.FAILED
    await person.context.close()


async def test_the_keyboard_is_enough(site: Site, browser: Browser) -> None:
    context = await browser.new_context()
    context.set_default_timeout(1000 * PATIENCE)
    page = await context.new_page()
    await page.goto(site.url + "/jobs/waiting-one")
    await page.keyboard.type(site.keys["ada"])  # the field has the focus
    await page.keyboard.press("Enter")
    await page.wait_for_url(site.url + "/jobs/waiting-one")  # the page that was asked for
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert await page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    for _ in range(20):
        await page.keyboard.press("Tab")
        if "Cancel this job" in await page.evaluate("document.activeElement.textContent"):
            break
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.type("no longer needed")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("The job is cancelled.")
    job = await site.client.job("waiting-one")
    assert job.error is not None
    assert job.error.message == "no longer needed (by ada)"
    await context.close()


PAGES = {
    "/?window=1440": True,
    "/jobs": True,
    "/jobs?state=failed&provider=unless&within=3600": False,
    "/jobs?q=" + CANARY: True,
    "/jobs/dead-one": True,
    "/jobs/dead-for-good": True,
    "/jobs/done-of-acme": False,
    "/jobs/lost-three": False,
    "/jobs/refused-one": True,
    "/held": False,
    "/dead": True,
    "/providers": False,
}
"""And whether text on it is what a producer or a handler wrote to do harm."""


LOOK = """() => {
  const width = () => document.documentElement.scrollWidth;
  const closed = width();
  for (const details of document.querySelectorAll("main details")) {
    details.removeAttribute("name");
    details.open = true;
  }
  const ground = getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3);
  const dark = ground.reduce((sum, part) => sum + Number(part), 0) < 200;
  return {closed, open: width(), dark, title: document.title, text: document.getElementById("main").innerText};
}"""


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
async def test_every_page_fits_runs_no_foreign_script_and_breaks_no_rule(
    site: Site, browser: Browser, width: int, scheme: Any
) -> None:
    person = await somebody(browser, site, viewport={"width": width, "height": 780}, color_scheme=scheme)
    for path, has_canary in PAGES.items():
        await person.open(path)
        seen = await person.page.evaluate(LOOK)
        assert (seen["closed"], seen["open"]) == (width, width), f"{path} scrolls sideways"
        assert seen["dark"] is (scheme == "dark"), path
        assert "caught" not in seen["title"], path
        assert (CANARY in seen["text"]) is has_canary, path
    assert person.complaints == []
    await person.context.close()


BROKEN = """() => {
  const broken = [];
  for (const name of document.querySelectorAll("table .id")) {
    for (const text of name.childNodes) {
      for (const word of text.data?.matchAll(/[a-z]+/g) ?? []) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        if (range.getClientRects().length > 1) broken.push(word[0]);
      }
    }
  }
  return broken;
}"""


@pytest.mark.parametrize("width", [360, 900, 1280])
async def test_no_name_is_broken_inside_a_word(site: Site, browser: Browser, width: int) -> None:
    person = await somebody(browser, site, viewport={"width": width, "height": 780})
    await person.open("/dead")
    await expect(person.page.get_by_role("row").filter(has_text="northern")).to_contain_text(LONG_TARGET)
    assert await person.page.evaluate(BROKEN) == []
    assert await person.page.evaluate("document.documentElement.scrollWidth") == width
    await person.context.close()


async def test_all_works_without_javascript(site: Site, browser: Browser) -> None:
    person = await somebody(browser, site, java_script_enabled=False)
    page = person.page
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await page.get_by_label("State").select_option("waiting")
    await page.get_by_role("button", name="Filter").click()
    await page.get_by_role("link", name="waiting-two").click()
    await page.get_by_text("Cancel this job…").click()
    await page.get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_role("status")).to_contain_text("The job is cancelled.")
    await person.open("/providers")
    card = page.get_by_role("article").filter(has_text="elevateai")
    await card.get_by_text("Pause…").click()
    await card.get_by_label("Reason").fill("an invoice")
    await card.get_by_role("button", name="Pause elevateai").click()
    await expect(card).to_contain_text("an invoice (by ada)")
    await card.get_by_role("button", name="Resume elevateai").click()
    await expect(card).to_contain_text("active")
    await page.get_by_role("button", name="Log out").click()
    await person.open("/jobs")
    await expect(page.get_by_label("API key")).to_be_visible()
    await person.context.close()


async def test_sessions_open_what_their_key_opens_and_end_with_it(site: Site) -> None:
    async with site.visitor() as visitor:
        asked = await visitor.get("/jobs?state=failed")
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/jobs%3Fstate%3Dfailed")
        assert (await visitor.post("/login", data={"key": "ow_00000000_wrong"})).status_code == 401
        assert (await visitor.post("/login", data={"key": site.keys["producer"]})).status_code == 403
        made = await site.access.create("for a while", {Scope.READ})
        for wanted, path in (
            ("/dead", "/dead"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil", "/"),
        ):
            answer = await visitor.post("/login", data={"key": made.text, "next": wanted})
            assert (answer.status_code, answer.headers["location"]) == (303, path)
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; ")[1:])
        assert made.text not in cookie
        page = await visitor.get("/jobs")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
        await site.access.revoke(made.key.id)
        assert (await visitor.get("/jobs")).status_code == 303


async def test_buttons_take_the_pages_own_forms_only(site: Site) -> None:
    async with site.logged_in("ada") as ada:
        page = (await ada.get("/jobs/waiting-three")).text
        field = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
        assert field
        token = field[1]
        cancel = "/jobs/waiting-three/cancel"
        assert (await ada.post(cancel)).status_code == 403
        assert (await ada.post(cancel, data={"csrf": "0" * 64})).status_code == 403
        evil = {"origin": "https://evil.example"}
        assert (await ada.post(cancel, data={"csrf": token}, headers=evil)).status_code == 403
        assert (await ada.post("/login", data={"key": site.keys["ada"]}, headers=evil)).status_code == 403
        assert (await site.client.job("waiting-three")).state is JobState.WAITING
        async with site.logged_in("reader") as reader:
            assert "<summary>Cancel" not in (await reader.get("/jobs/waiting-three")).text
            field_of_reader = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await reader.get("/jobs")).text)
            assert field_of_reader
            refused = await reader.post(cancel, data={"csrf": field_of_reader[1]})
            assert refused.status_code == 403
            assert "lacks the scope operate" in refused.text
        assert (await ada.post(cancel, data={"csrf": token}, headers={"origin": site.url})).status_code == 303
        again = await ada.post(cancel, data={"csrf": token})
        assert again.status_code == 409
        assert "it has ended" in again.text
        assert (await ada.post("/logout", data={"csrf": token})).status_code == 303
        assert (await ada.get("/jobs")).status_code == 303


async def test_a_tenant_sees_its_own_jobs_alone(site: Site) -> None:
    async with site.logged_in("acme") as acme:
        for path in ("/", "/jobs", "/dead", "/held"):
            page = (await acme.get(path)).text
            assert "dead-of-globex" not in page, path
            assert "lost-three" not in page, path
        assert "done-of-acme" in (await acme.get("/jobs")).text
        assert (await acme.get("/jobs?q=done-of-acme")).status_code == 303
        assert (await acme.get("/jobs?q=dead-of-globex")).status_code == 200
        token = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await acme.get("/jobs")).text)
        assert token
        for path in ("/jobs/dead-of-globex", "/jobs/dead-of-globex/result", "/jobs/no-such-job"):
            assert (await acme.get(path)).status_code == 404, path
        assert (await acme.get("/providers")).status_code == 403
        pressed = await acme.post("/providers/unless/pause", data={"csrf": token[1]})
        assert pressed.status_code == 403
        chosen = await acme.post("/dead/replay", data={"csrf": token[1], "delivery": "dead-of-globex#1"})
        assert chosen.headers["location"] == "/dead?done=replayed&n=0"


async def test_errors_are_pages_for_people_and_problems_for_programs(site: Site) -> None:
    async with site.logged_in("ada") as ada:
        for path in ("/jobs/no-such-job", "/nowhere", "/jobs?cursor=rubbish"):
            page = await ada.get(path)
            assert page.status_code in (404, 422), path
            assert 'href="/jobs"' in page.text, path
            assert "Log out" in page.text, path
        problem = await ada.get("/v1/jobs/no-such-job")
        assert problem.headers["content-type"] == "application/problem+json"
        whole = await ada.get("/jobs/done-of-acme/result")
        assert len(whole.json()["answer"]) >= 60_000
        assert "Open the full result" in (await ada.get("/jobs/done-of-acme")).text
        asset = await ada.get("/assets/page.js")
        assert asset.headers["content-type"].startswith("text/javascript")
        assert (await ada.get("/assets/..%2Frendering.py")).status_code == 404


async def test_who_tries_one_key_after_the_other_is_slowed_down(site: Site) -> None:
    transport = httpx.AsyncHTTPTransport(local_address="127.0.0.9")  # not the address of the other tests
    async with site.visitor(transport=transport) as visitor:
        statuses = [(await visitor.post("/login", data={"key": f"wrong {n}"})).status_code for n in range(11)]
        assert statuses == [401] * 10 + [429]
        assert (await visitor.post("/login", data={"key": site.keys["ada"]})).status_code == 303  # nobody is locked out
        assert (await visitor.post("/login", data={"key": "wrong"})).status_code == 429
    async with site.logged_in("ada") as ada:
        assert (await ada.get("/")).status_code == 200
