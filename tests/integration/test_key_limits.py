"""Keys with an end, with networks, and keys that make keys: in a real store and over real HTTP."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from outwait.cli.keys import keys
from outwait.config.settings import Settings
from outwait.worker.model.api_keys import ApiKey, Scope, made_by
from outwait.worker.model.errors import Forbidden
from outwait.worker.store import access as module
from outwait.worker.store.access import Access, NewKey
from outwait.worker.store.connection import Connection
from tests.patience import PATIENCE
from tests.stack import Stack, query, until

BOSS = {Scope.KEYS, Scope.READ}


@pytest.fixture
def access(connection: Connection) -> Access:
    return Access(connection)


async def test_a_key_ends_with_its_logins(access: Access) -> None:
    made = await access.create("ada", [Scope.READ], ttl_s=2)
    token = await access.log_in(made.key, 600)
    assert await access.find(made.text) == made.key == await access.session(token)

    async def over() -> bool:
        return await access.find(made.text) is None

    await until(over)
    assert await access.session(token) is None
    assert [key.id for key in await access.all()] == [made.key.id]
    assert await access.revoke(made.key.id)
    assert await access.all() == []


async def test_a_key_is_good_from_its_networks_only(access: Access) -> None:
    made = await access.create("ada", [Scope.READ], networks=["192.0.2.7", "2001:db8::/32"])
    token = await access.log_in(made.key, 600)
    for address in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1::1"):
        assert await access.find(made.text, address) == made.key == await access.session(token, address)
    for address in ("192.0.2.8", "2001:db9::1", "", "unknown"):
        with pytest.raises(Forbidden, match="'ada' is not good for callers from"):
            await access.find(made.text, address)
        with pytest.raises(Forbidden):
            await access.session(token, address)


async def test_the_previous_release_knows_no_key_with_limits(access: Access, connection: Connection) -> None:
    """0.2.0 reads only this hash, and would neither see the limits nor understand the scope."""
    plain = await access.create("plain", [Scope.READ, Scope.ENQUEUE, Scope.OPERATE], "acme")
    await access.create("ends", [Scope.READ], ttl_s=600)
    await access.create("near", [Scope.READ], networks=["10.0.0.0/8"])
    await access.create("boss", BOSS)
    assert await connection.redis.hkeys(connection.keys("ACCESS")) == [plain.key.id.encode()]
    assert len(await access.all()) == 4


async def test_keys_of_the_previous_release_are_good(access: Access, connection: Connection) -> None:
    secret = "s" * 43
    row = {"id": "00c0ffee", "name": "old", "scopes": ["read", "enqueue"], "created": 1, "tenant": None, "used": None}
    stored = msgspec.json.encode({"key": row, "digest": module._digest(secret)})
    await connection.redis.hset(connection.keys("ACCESS"), "00c0ffee", stored)
    found = await access.find(f"ow_00c0ffee_{secret}", "192.0.2.7")
    assert found == ApiKey("00c0ffee", "old", frozenset({Scope.READ, Scope.ENQUEUE}), 1)
    rotated = await access.rotate("00c0ffee", 0)
    assert rotated is not None
    assert await access.find(f"ow_00c0ffee_{secret}") is None
    assert await access.find(rotated.text) == rotated.key


async def test_page_views_are_use(access: Access) -> None:
    made = await access.create("ada", [Scope.READ])
    token = await access.log_in(made.key, 600)
    assert [key.used for key in await access.all()] == [None]
    await access.session(token)
    assert [key.used for key in await access.all()] == [pytest.approx(made.key.created, abs=5)]


def a_key(**fields: object) -> ApiKey:
    return msgspec.structs.replace(ApiKey("1", "boss", frozenset(BOSS), 0), **fields)


@pytest.mark.parametrize(
    ("maker", "made", "covers"),
    [
        ({}, {}, True),
        ({}, {"scopes": frozenset({Scope.READ})}, True),
        ({}, {"scopes": frozenset({Scope.READ, Scope.OPERATE})}, False),
        ({}, {"tenant": "a"}, True),
        ({"tenant": "a"}, {"tenant": "a"}, True),
        ({"tenant": "a"}, {"tenant": "b"}, False),
        ({"tenant": "a"}, {}, False),
        ({}, {"expires": 5.0}, True),
        ({"expires": 5.0}, {"expires": 5.0}, True),
        ({"expires": 5.0}, {"expires": 5.1}, False),
        ({"expires": 5.0}, {}, False),
        ({}, {"networks": ("10.0.0.0/8",)}, True),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("10.1.0.0/16", "10.2.3.4")}, True),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("10.1.0.0/16", "11.0.0.1")}, False),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("0.0.0.0/0",)}, False),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("::/0",)}, False),
        ({"networks": ("10.0.0.0/8",)}, {}, False),
        ({"priority_max": 6}, {"priority_max": 5}, True),
        ({"priority_max": 6}, {"priority_max": 7}, False),
        ({"priority_max": 6}, {}, False),
    ],
)
def test_nobody_gives_more_than_they_have(maker: dict[str, object], made: dict[str, object], *, covers: bool) -> None:
    assert a_key(**maker).covers(a_key(**made)) is covers


def test_what_a_key_made_is_known() -> None:
    family = [a_key(id="b", maker="a"), a_key(id="c", maker="b"), a_key(id="d"), a_key(id="e", maker="x")]
    assert made_by(family, "a") == {"b", "c"}


def test_the_commands_know_ends_networks_and_rotation(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("OUTWAIT_NAMESPACE", settings.namespace)
    run = CliRunner().invoke

    def json_of(*words: str) -> dict[str, object]:
        document: dict[str, object] = msgspec.json.decode(run(keys, [*words, "--json"]).stdout)
        return document

    made = json_of("create", "crm", "--expires", "90d", "--from", "10.0.0.0/8", "--from", "192.0.2.7")
    assert made["networks"] == ["10.0.0.0/8", "192.0.2.7"]
    assert float(str(made["expires"])) - float(str(made["created"])) == 90 * 86400
    assert run(keys, ["create", "crm", "--from", "crm.internal"]).exit_code != 0
    assert run(keys, ["create", "crm", "--expires", "soon"]).exit_code == 2
    rotated = json_of("rotate", str(made["id"]), "--overlap", "1h")
    assert (rotated["name"], rotated["networks"], rotated["expires"]) == ("crm", made["networks"], made["expires"])
    assert run(keys, ["rotate", "00000000"]).exit_code == 4
    assert run(keys, ["revoke", str(made["id"]), "--made"]).exit_code == 0
    assert msgspec.json.decode(run(keys, ["list", "--json"]).stdout) == []


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(redis_url, tmp_path_factory.mktemp("keys")) as running:
        running.web(OUTWAIT_WEB__TRUSTED_PROXIES="127.0.0.1")
        yield running


@asynccontextmanager
async def caller(stack: Stack, text: str, address: str = "") -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {text}"} | ({"X-Forwarded-For": address} if address else {})
    async with httpx.AsyncClient(base_url=stack.web_url, headers=headers, timeout=PATIENCE) as client:
        yield client


async def boss(stack: Stack, tenant: str | None = None) -> NewKey:
    connection = Connection(stack.settings)
    made = await Access(connection).create("boss", BOSS, tenant, ttl_s=3600, networks=["10.0.0.0/8", "127.0.0.1"])
    await connection.close()
    return made


async def test_a_key_has_a_highest_priority_and_so_have_those_that_it_makes(stack: Stack) -> None:
    """Protected by outwait/web/enqueue.py `_check_priority` and worker/model/api_keys.py `covers`."""
    connection = Connection(stack.settings)
    made = await Access(connection).create("boss", {Scope.ENQUEUE, Scope.KEYS}, "acme", priority_max=6)
    await connection.close()
    job = query("urgent", tenant="acme").model_dump(mode="json", exclude_none=True)
    async with caller(stack, made.text) as api:
        child = (await api.post("/v1/keys", json={"name": "shop", "scopes": ["enqueue"]})).json()
        assert child["priority_max"] == 6
        more = await api.post("/v1/keys", json={"name": "shop", "scopes": ["enqueue"], "priority_max": 7})
        assert (more.status_code, more.json()["code"]) == (403, "forbidden")
    async with caller(stack, child["key"]) as api:
        answers = [await api.post("/v1/jobs", json=job | {"priority": priority}) for priority in (6, 7)]
        assert [answer.status_code for answer in answers] == [201, 403]
        assert "the API key 'shop' goes up to 6" in answers[1].json()["detail"]


async def test_a_key_makes_keys_over_http_that_allow_no_more(stack: Stack) -> None:
    made = await boss(stack, "acme")
    async with caller(stack, made.text) as api:
        answer = await api.post("/v1/keys", json={"name": "shop", "scopes": ["read"]})
        assert answer.status_code == 201
        child = answer.json()
        assert {name: child[name] for name in ("tenant", "expires", "networks", "maker")} == {
            "tenant": "acme",
            "expires": made.key.expires,
            "networks": ["10.0.0.0/8", "127.0.0.1"],
            "maker": made.key.id,
        }
        for more in (
            {"scopes": ["read", "enqueue"]},
            {"tenant": "other"},
            {"networks": ["0.0.0.0/0"]},
            {"expires_in": 7200},
        ):
            refused = await api.post("/v1/keys", json={"name": "shop", "scopes": ["read"], **more})
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), more
        assert {key["id"] for key in (await api.get("/v1/keys")).json()["keys"]} == {made.key.id, child["id"]}
        assert made.text not in (await api.get("/v1/keys")).text
    async with caller(stack, child["key"]) as api:
        assert (await api.get("/v1/jobs")).status_code == 200
        assert (await api.get("/v1/keys")).status_code == 403  # it lacks the scope
    async with caller(stack, child["key"], "192.0.2.7") as api:
        assert (await api.get("/v1/jobs")).json()["code"] == "forbidden"
        assert (await api.post("/login", data={"key": child["key"]})).status_code == 403


async def test_keys_are_rotated_and_revoked_over_http_by_those_who_cover_them(stack: Stack) -> None:
    made, other, wide = await boss(stack, "acme"), await boss(stack, "other"), await boss(stack)
    async with caller(stack, other.text) as api:
        for path in ("rotate", "revoke"):
            assert (await api.post(f"/v1/keys/{made.key.id}/{path}", json={})).status_code == 404
            assert (await api.post(f"/v1/keys/{wide.key.id}/{path}", json={})).status_code == 404
    async with caller(stack, made.text) as api:
        new = (await api.post(f"/v1/keys/{made.key.id}/rotate", json={"overlap": 600})).json()
        # The old one ends first, so it has no power over the new one.
        assert (await api.post(f"/v1/keys/{new['id']}/revoke", json={})).status_code == 404
    async with caller(stack, new["key"]) as api:
        ends = {key["id"]: key["expires"] for key in (await api.get("/v1/keys")).json()["keys"]}
        assert ends[made.key.id] < ends[new["id"]] == made.key.expires
        child = (await api.post("/v1/keys", json={"name": "shop", "scopes": ["read"]})).json()
    async with caller(stack, wide.text) as api:
        revoked = await api.post(f"/v1/keys/{made.key.id}/revoke", json={"made": True})
        assert revoked.json()["revoked"] == sorted([made.key.id, new["id"], child["id"]])
    for text in (made.text, new["key"], child["key"]):
        async with caller(stack, text) as api:
            assert (await api.get("/v1/jobs")).status_code == 401


async def test_a_key_cannot_fill_the_store_with_keys(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MADE_MAX", 3)
    maker = (await access.create("boss", BOSS, "acme")).key
    for _ in range(3):
        await access.create("shop", [Scope.READ], "acme", ttl_s=0.001, maker=maker)
    with pytest.raises(Forbidden, match="revoke some"):
        await access.create("shop", [Scope.READ], "acme", maker=maker)
    monkeypatch.setattr(module, "KEPT", -10.0)
    await access.create("shop", [Scope.READ], "acme", maker=maker)
    assert sorted(key.name for key in await access.all()) == ["boss", "shop"]
