"""API keys and logins in a real store: what opens, what never does, and that only hashes are kept."""

import asyncio
import hmac
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outwait.cli.keys import keys, local_key
from outwait.config.settings import Settings
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.store import access as module
from outwait.worker.store.access import Access, Scope
from outwait.worker.store.connection import Connection
from tests.stack import until


@pytest.fixture
def access(connection: Connection) -> Access:
    return Access(connection)


async def stored(connection: Connection) -> str:
    """Everything that this namespace holds: names and values."""
    redis = connection.redis
    reads = {b"hash": redis.hgetall, b"string": redis.get}
    held = redis.scan_iter(f"{{{connection.settings.namespace}}}:*")
    return repr([(key, await reads[await redis.type(key)](key)) async for key in held])


async def test_a_key_opens_until_it_is_revoked(access: Access) -> None:
    made = await access.create("crm", [Scope.ENQUEUE, Scope.READ], "acme")
    key = await access.find(made.text)
    assert key == made.key
    assert (key.name, key.scopes, key.tenant) == ("crm", {Scope.ENQUEUE, Scope.READ}, "acme")
    assert await access.revoke(made.key.id)
    assert await access.find(made.text) is None
    assert not await access.revoke(made.key.id)
    assert await access.all() == []


async def test_nothing_else_opens(access: Access, settings: Settings) -> None:
    first, two = await access.create("one", [Scope.READ]), await access.create("two", [Scope.READ])
    prefix, key_id, secret = first.text.split("_", 2)
    other_secret = two.text.split("_", 2)[2]
    wrong = [
        *(first.text[:length] for length in range(len(first.text))),
        first.text + "A",
        first.text + "\n",
        " " + first.text,
        first.text.upper(),
        f"xx_{key_id}_{secret}",
        f"{prefix}_{key_id}_{other_secret}",
        f"{prefix}_{two.key.id}_{secret}",
        f"{prefix}__{secret}",
        f"{prefix}_{key_id}_{module._digest(secret)}",
        f"{prefix}_{key_id}_\udcff\x00é",
    ]
    for text in wrong:
        assert await access.find(text) is None, text
    elsewhere = Connection(settings.model_copy(update={"namespace": f"{settings.namespace}-other"}))
    assert await Access(elsewhere).find(first.text) is None
    assert await Access(elsewhere).session(await access.log_in(first.key, 60)) is None
    await elsewhere.close()


async def test_hashes_are_compared_in_constant_time(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await access.create("crm", [Scope.READ])
    compared: list[tuple[str, str]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: bool(compared.append(pair)))
    assert await access.find(made.text) is None  # nothing but that comparison decides
    assert len(compared) == 1


async def test_a_session_ends_by_itself_by_logging_out_and_with_its_key(access: Access) -> None:
    made = await access.create("ada", [Scope.READ])
    short, left, kept = [await access.log_in(made.key, seconds) for seconds in (2, 600, 600)]
    assert [await access.session(token) for token in (short, left, kept)] == [made.key] * 3

    async def over() -> bool:
        return await access.session(short) is None

    await until(over)
    await access.log_out(left)
    assert await access.session(left) is None
    assert await access.session(kept) == made.key
    await access.revoke(made.key.id)
    assert await access.session(kept) is None
    assert await access.session("") is None
    assert await access.session("\udcff") is None
    assert await access.session(made.text) is None


async def test_nothing_but_hashes_is_stored(access: Access, connection: Connection) -> None:
    made = await access.create("ada", [Scope.READ])
    token = await access.log_in(made.key, 60)
    await access.find(made.text)
    held = await stored(connection)
    assert made.key.id in held
    assert made.text.split("_", 2)[2] not in held
    assert token not in held


async def test_use_is_written_down_once_a_minute(
    access: Access, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, idle = await access.create("ada", [Scope.READ]), await access.create("idle", [Scope.READ])
    await access.find(made.text)
    known = {key.id: key.used for key in await access.all()}
    assert known[idle.key.id] is None
    assert known[made.key.id] == pytest.approx(made.key.created, abs=5)
    await connection.redis.delete(connection.keys("USED"))
    await access.find(made.text)
    assert {key.used for key in await access.all()} == {None}
    monkeypatch.setattr(module, "USED_EVERY", 0.0)
    await access.find(made.text)
    assert {key.used for key in await access.all()} != {None}


@pytest.mark.parametrize("bad", [{"name": ""}, {"name": "a\nb"}, {"name": "x" * 61}, {"scopes": []}, {"tenant": "a b"}])
async def test_bad_input_makes_no_key(access: Access, bad: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        await access.create(**{"name": "crm", "scopes": [Scope.READ], **bad})
    assert await access.all() == []


def test_the_commands_make_list_and_revoke(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("OUTWAIT_NAMESPACE", settings.namespace)
    run = CliRunner().invoke
    looks = run(keys, ["create", "grafana"])
    assert looks.stdout.startswith("ow_")
    assert "shown only once" in looks.stderr
    made = json.loads(run(keys, ["create", "crm", "--scope", "enqueue", "--tenant", "acme", "--json"]).stdout)
    assert (made["scopes"], made["tenant"]) == (["enqueue"], "acme")
    listed = {key["name"]: key for key in json.loads(run(keys, ["list", "--json"]).stdout)}
    assert listed["grafana"]["scopes"] == ["read"]  # nothing that costs money unless somebody says so
    table = run(keys, ["list"]).stdout
    for text in (looks.stdout.strip(), made["key"]):
        assert text.split("_", 2)[2] not in table + json.dumps(listed)
    assert run(keys, ["revoke", made["id"]]).exit_code == 0
    assert run(keys, ["revoke", made["id"]]).exit_code == 4
    assert [key["name"] for key in json.loads(run(keys, ["list", "--json"]).stdout)] == ["grafana"]


def test_up_keeps_one_key_readable_by_this_user_alone(settings: Settings, tmp_path: Path) -> None:
    file = local_key(settings, tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text()
    assert local_key(settings, tmp_path).read_text() == first  # a second start makes no second one

    async def replace() -> None:
        connection = Connection(settings)
        access = Access(connection)
        [only] = await access.all()
        assert only.scopes == set(Scope)
        await access.revoke(only.id)
        await connection.close()

    asyncio.run(replace())
    file.chmod(0o644)
    again = local_key(settings, tmp_path)
    assert again.read_text() != first
    assert again.stat().st_mode & 0o777 == 0o600
