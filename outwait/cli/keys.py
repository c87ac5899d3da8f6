"""`outwait keys`: API keys for the HTTP API and the pages."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.cli.since import duration
from outwait.client.store import local_actor
from outwait.config.exits import Exit
from outwait.config.settings import Settings
from outwait.worker.model.acts import ActKind, Via
from outwait.worker.model.api_keys import PRIORITY_HIGHEST, ApiKey, Scope, made_by
from outwait.worker.store.access import NewKey
from outwait.worker.store.store import Store

LOCAL = "web.key"
"""File in the data folder of `outwait up`: an API key for the person who runs it."""

T = TypeVar("T")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `outwait keys list`.")]

keys = typer.Typer(help="Create, list and revoke API keys. They are used for the HTTP API and to log in to the pages.")


@keys.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of its owner; timelines show it.")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="What the key allows; give the option once for each scope. enqueue costs money."),
    ] = [Scope.READ],  # noqa: B006 - typer copies it
    tenant: Annotated[str | None, typer.Option(help="Limit the key to the jobs of one tenant.")] = None,
    expires: Annotated[
        float | None, duration("Time for which the key is valid: 12h, 90d. Without it, for ever.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NETWORK", help="Address or network of its callers; once for each of them."),
    ] = None,
    priority_max: Annotated[
        int, typer.Option(min=5, max=PRIORITY_HIGHEST, help="Highest priority of jobs that it enqueues.")
    ] = PRIORITY_HIGHEST,
    as_json: Json = False,
) -> None:
    """Create an API key and print it. It cannot be shown again: only its hash is stored."""

    async def make(store: Store) -> NewKey:
        made = await store.access.create(
            name, set(scope), tenant, ttl_s=expires, networks=network or (), priority_max=priority_max
        )
        await _note(store, ActKind.CREATE_KEY, made.key)
        return made

    _print_new(_ask(current(context).settings(), make), as_json=as_json)


@keys.command()
def rotate(
    context: typer.Context,
    key_id: KeyId,
    overlap: Annotated[float, duration("Time for which the old key stays valid: 1h, 7d.")] = 86400.0,
    as_json: Json = False,
) -> None:
    """Create a key that takes the place of another one, with the same name, rights and end. The old one ends later."""

    async def replace(store: Store) -> NewKey | None:
        made = await store.access.rotate(key_id, overlap)
        if made is not None:
            await _note(store, ActKind.ROTATE_KEY, made.key, f"in place of {key_id}")
        return made

    made = _ask(current(context).settings(), replace)
    if made is None:
        say(f"Error: no valid API key has the id {key_id!r}. `outwait keys list` shows the ids.")
        raise typer.Exit(Exit.NOT_FOUND)
    _print_new(made, as_json=as_json)


@keys.command("list")
def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the API keys, and when each was last used."""
    all_keys = _ask(current(context).settings(), lambda store: store.access.all())
    if as_json:
        print_json([_fields(key) for key in all_keys])
        return
    rows = [
        (
            key.id,
            key.name,
            key.rights,
            key.tenant or "all",
            ", ".join(key.networks) or "anywhere",
            when(key.created),
            when(key.used) if key.used else "never",
            when(key.expires) if key.expires else "never",
        )
        for key in all_keys
    ]
    empty = "There are no API keys. `outwait keys create NAME` creates one."
    print_table(("id", "name", "scopes", "tenant", "from", "created", "used", "expires"), rows, empty=empty)


@keys.command()
def revoke(
    context: typer.Context,
    key_id: KeyId,
    made: Annotated[bool, typer.Option("--made", help="Also revoke the keys that it has made over HTTP.")] = False,
    as_json: Json = False,
) -> None:
    """Revoke an API key. The key, and every login with it, stops working at once."""

    async def end(store: Store) -> bool:
        known = {key.id: key for key in await store.access.all()}
        ids = (key_id, *(made_by(list(known.values()), key_id) if made else ()))
        existed = await store.access.revoke(*ids)
        for key in (known[each] for each in ids if existed and each in known):
            await _note(store, ActKind.REVOKE_KEY, key)
        return existed

    existed = _ask(current(context).settings(), end)
    if as_json:
        print_json({"id": key_id, "revoked": existed})
    elif existed:
        say(f"The key {key_id} is revoked.")
    else:
        say(f"Error: no API key has the id {key_id!r}. `outwait keys list` shows the ids.")
    if not existed:
        raise typer.Exit(Exit.NOT_FOUND)


def _print_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": made.text, **_fields(made.key)})
        return
    typer.echo(made.text)
    say(f"This is the API key {made.key.name!r} with the scopes {made.key.rights}; its id is {made.key.id}.")
    say("It is shown only once. Keep it as you keep a password.")


def local_key(settings: Settings, folder: Path) -> Path:
    """The file with an API key that has all scopes, for the person who runs `outwait up`. Created if it is missing.

    Only this user can read the file. The password of the embedded Redis, beside it, gives the same access.
    """
    file = folder / LOCAL

    async def ensure(store: Store) -> None:
        if file.exists() and await store.access.find(file.read_text().strip()):
            return
        created = await store.access.create("local", set(Scope))
        await _note(store, ActKind.CREATE_KEY, created.key)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()  # an old file may have wider permissions
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(created.text + "\n")

    _ask(settings, ensure)
    return file


def _ask(settings: Settings, question: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Store.open(settings) as store:
            return await question(store)

    return asyncio.run(run())


async def _note(store: Store, what: ActKind, key: ApiKey, note: str = "") -> None:
    words = "; ".join(filter(None, (key.rights, f"tenant {key.tenant or 'all'}", note)))
    await store.audit.write(local_actor(Via.COMMAND).act(what, about=f"{key.id} {key.name}", detail=words))


def _fields(key: ApiKey) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(key)
    return fields | {"scopes": sorted(key.scopes)}
