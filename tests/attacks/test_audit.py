"""Whoever acts cannot wipe the traces of it, nor those of somebody else."""

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from outwait.client.store import StoreClient
from outwait.config.settings import Settings
from outwait.worker.model.acts import OF_TENANT, Act, ActKind, Actor, Via
from outwait.worker.model.errors import Conflict
from outwait.worker.model.jobs import Step
from outwait.worker.model.lanes import Lane
from outwait.worker.store.access import NewKey, Scope
from outwait.worker.store.fields import GovernorField
from outwait.worker.store.lanes import Held, LanePolicy
from outwait.worker.store.store import Store
from tests.patience import PATIENCE
from tests.stack import Stack, query

POLICY = LanePolicy(batch=10, lease_ms=60_000, cap=100)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[StoreClient]:
    """No worker runs: what is enqueued stays as it is."""
    async with StoreClient(settings) as client:
        yield client


async def test_messages_that_conflict_leave_a_timeline_as_it_was(client: StoreClient) -> None:
    """Protected by worker/store/lua/enqueue.lua: they are counted in one entry, 210 of them as well as one."""
    job_id = (await client.enqueue(query("mine"), job_id="mine")).job_id
    before = await client.timeline(job_id)
    for number in range(210):
        with pytest.raises(Conflict):
            await client.enqueue(query(f"not mine {number}", tenant="mallory"), job_id=job_id)
    after = await client.timeline(job_id)
    assert after[: len(before)] == before
    (entry,) = after[len(before) :]
    assert (entry.event, entry.detail.partition(";")[2].strip()) == ("conflict", "210 so far")


async def test_asking_for_a_cancel_again_and_again_is_one_entry(client: StoreClient) -> None:
    """Protected by worker/store/lua/record/jobs.lua `verbs.cancel`, while a submit is on its way."""
    job_id = (await client.enqueue(query("mine"))).job_id
    lane, lanes = Lane.of(Step.SUBMIT, "unless"), client._store.lanes
    (claim,) = await lanes.claim(lane, POLICY)
    _, (fence,) = await lanes.begin(lane, POLICY, [Held(claim.work_id, claim.fence)])
    assert await lanes.renew(lane, POLICY, [Held(claim.work_id, fence)], intent=True) == [True]
    for _ in range(210):
        assert not await client.cancel(job_id)
    assert [entry.event for entry in await client.timeline(job_id)].count("cancel-asked") == 1
    assert (await client.timeline(job_id))[0].event == "enqueued"


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A web process and no worker."""
    with Stack(redis_url, tmp_path_factory.mktemp("audit")) as stack:
        stack.web()
        yield stack


async def key(stack: Stack, name: str, tenant: str | None = None) -> NewKey:
    async with Store.open(stack.settings) as store:
        return await store.access.create(name, set(Scope), tenant)


def http(stack: Stack, made: NewKey) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {made.text}"}
    return httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE)


async def listed(caller: httpx.AsyncClient, **wanted: Any) -> list[dict[str, Any]]:
    answer = await caller.get("/v1/audit", params=wanted)
    assert answer.status_code == 200, answer.text
    acts: list[dict[str, Any]] = answer.json()["acts"]
    return acts


async def test_who_cancelled_over_http_and_from_where_is_stored(stack: Stack) -> None:
    """Protected by outwait/web/actors.py and worker/store/lua/record/acts.lua."""
    ops, acme, other = await key(stack, "ops"), await key(stack, "acme", "acme"), await key(stack, "other", "other")
    async with stack.client() as client:
        mine, theirs = [(await client.enqueue(query(f"{n}", tenant="acme"))).job_id for n in range(2)]
    async with http(stack, ops) as by_ops, http(stack, acme) as by_acme, http(stack, other) as by_other:
        assert (await by_acme.post(f"/v1/jobs/{mine}/cancel")).status_code == 200
        assert (await by_ops.post(f"/v1/jobs/{theirs}/cancel")).status_code == 200
        (act,) = await listed(by_ops, job=mine)
        assert (act["what"], act["who"], act["key"], act["via"]) == ("cancel", "acme", acme.key.id, "http")
        assert (act["address"], act["tenant"], act["job"]) == ("127.0.0.1", "acme", mine)
        assert {act["job"]: act["address"] for act in await listed(by_acme)} == {mine: "127.0.0.1", theirs: ""}
        assert await listed(by_other) == []
        assert (await by_other.get("/v1/audit", params={"job": mine})).status_code == 404
        assert (await by_other.get("/v1/audit", params={"tenant": "acme"})).status_code == 403
    lines = [line for line in stack.logs("web").splitlines() if mine in line and "cancel" in line]
    assert any(acme.key.id in line and "address=127.0.0.1" in line for line in lines)


async def test_who_paused_is_stored_and_shown(stack: Stack) -> None:
    """Protected by worker/store/lua/record/governor.lua."""
    ops = await key(stack, "night shift")
    async with http(stack, ops) as caller:
        paused = (await caller.post("/v1/providers/unless/pause", json={"reason": "an invoice"})).json()
        assert paused["suspended_by"] == f"night shift (key {ops.key.id}, 127.0.0.1)"
        shown = stack.run("providers").stdout
        assert "night shift" in shown
        assert (await caller.post("/v1/providers/unless/resume")).status_code == 200
        acts = [(act["what"], act["about"], act["detail"]) for act in await listed(caller, limit=2)]
        assert acts == [("resume", "unless", ""), ("pause", "unless", "an invoice")]


async def test_a_pause_of_an_old_release_is_nobody_s(client: StoreClient) -> None:
    """Protected by worker/store/governors.py: it knows no person, and leaves the one of the pause before."""
    await client.pause("unless", "ours")
    redis, governor = client._store.connection.redis, client._store.connection.keys("GOVERNOR", "unless")
    await redis.hset(governor, mapping={GovernorField.SUSPENDED: 1_700_000_000_000, GovernorField.SUSPEND_REASON: "x"})
    (status,) = [status for status in await client.providers() if status.provider == "unless"]
    assert (status.suspended_why, status.suspended_by) == ("x", "")


async def test_buttons_logins_and_commands_are_stored_too(stack: Stack) -> None:
    """Protected by outwait/web/pages/session.py `Deciding`, pages/login.py and outwait/cli/session.py."""
    person = await key(stack, "ada")
    async with stack.client() as client:
        pressed, typed = [(await client.enqueue(query(f"{n}"))).job_id for n in range(2)]
    async with httpx.AsyncClient(base_url=stack.web_url, timeout=PATIENCE) as browser:
        assert (await browser.post("/login", data={"key": "ow_00000000_" + "x" * 43})).status_code == 401
        assert (await browser.post("/login", data={"key": person.text})).status_code == 303
        page = (await browser.get(f"/jobs/{pressed}")).text
        token = re.search(r'name="csrf" value="(\w+)"', page)
        assert token
        await browser.post(f"/jobs/{pressed}/cancel", data={"csrf": token[1], "reason": "a mistake"})
        page = (await browser.get(f"/jobs/{pressed}")).text
        assert "What persons did" in page
        assert f"key {person.key.id}, page, 127.0.0.1" in page
    assert f'caller="ada ({person.key.id})"' in stack.logs("web")
    assert stack.run("cancel", typed).returncode == 0
    made = json.loads(stack.run("keys", "create", "robot", "--json").stdout)
    assert stack.run("keys", "revoke", made["id"]).returncode == 0
    acts = json.loads(stack.run("audit", "--json").stdout)["acts"]
    kinds = [act["what"] for act in acts]
    assert kinds[:6] == ["revoke-key", "create-key", "cancel", "cancel", "login", "login-refused"]
    assert {act["via"] for act in acts[:3]} == {"command line"}
    assert all(act["who"] and act["address"] == socket.gethostname() for act in acts[:3])
    assert made["id"] in acts[1]["about"]
    assert (acts[3]["detail"], acts[5]["address"]) == ("a mistake (by ada)", "127.0.0.1")
    assert "a mistake" in stack.run("audit", pressed).stdout
    assert "x" * 43 not in json.dumps(acts)


async def test_nobody_pushes_out_the_acts_of_others(client: StoreClient) -> None:
    """Protected by worker/model/acts.py: each tenant has a trail of its own, and strangers have one."""
    operator = Actor(who="ops", via=Via.HTTP, key="1")
    await client.acting(operator).note(ActKind.PAUSE, about="unless")
    connection = client._store.connection
    busy = Actor(who="acme", via=Via.HTTP, key="2", key_tenant="acme")
    filler = f"1 - - {busy.act(ActKind.LOGIN).record}"
    await connection.redis.lpush(connection.keys("ACTS", f"{OF_TENANT}acme"), *([filler] * 10_000))
    await client.acting(busy).note(ActKind.LOGIN)
    assert await connection.redis.llen(connection.keys("ACTS", f"{OF_TENANT}acme")) == 10_000
    stranger = Actor(who="unknown", via=Via.PAGE, address="192.0.2.1")
    await client.acting(stranger).note(ActKind.LOGIN_REFUSED)

    def what(acts: list[Act]) -> set[tuple[str, str]]:
        return {(act.what, act.who) for act in acts}

    assert what(await client.acts()) == {("login-refused", "unknown"), ("login", "acme"), ("pause", "ops")}
    assert what(await client.acts(tenant="acme")) == {("login", "acme")}


async def test_210_messages_push_out_no_act(client: StoreClient) -> None:
    """Protected by worker/store/lua/record/acts.lua: a job's acts are kept apart from its timeline."""
    job_id = (await client.enqueue(query("mine"), job_id="mine")).job_id
    assert await client.cancel(job_id, "too dear, see https://x.example/?token=secret")
    for number in range(210):
        with pytest.raises(Conflict):
            await client.enqueue(query(f"not mine {number}"), job_id=job_id)
    (act,) = await client.acts(job=job_id)
    assert act.what is ActKind.CANCEL
    assert act.via is Via.CLIENT
    assert "secret" not in act.detail


async def test_keys_that_are_made_over_http_are_acts(stack: Stack) -> None:
    """Protected by outwait/web/keys.py."""
    maker = await key(stack, "maker")
    async with http(stack, maker) as caller:
        made = (await caller.post("/v1/keys", json={"name": "robot", "scopes": ["read"]})).json()
        assert (await caller.post(f"/v1/keys/{made['id']}/revoke", json={})).status_code == 200
        revoked, created = await listed(caller, limit=2)
    assert (created["what"], created["about"], created["who"]) == ("create-key", f"{made['id']} robot", "maker")
    assert (revoked["what"], revoked["about"], revoked["key"]) == ("revoke-key", made["id"], maker.key.id)
