"""Puts the Lua scripts together, loads and runs them; survives a Redis that has forgotten them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from importlib import resources
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from outwait.worker.model.jobs import NORMAL, Claim
from outwait.worker.store import fields
from outwait.worker.store.codes import EnqueueResult, Recorded
from outwait.worker.store.keys import Keys

_FOLDER = resources.files("outwait.worker.store") / "lua"

_pack = msgspec.msgpack.Encoder().encode


def _codes(codes: type[IntEnum]) -> str:
    return "".join(f"local {code.name} = {code.value}\n" for code in codes)


def _claim_row() -> str:
    """A Lua function that makes a table of names the array that a claim is in Celery's messages."""
    required = len(Claim.__struct_fields__) - len(Claim.__struct_defaults__)
    defaults = dict(zip(Claim.__struct_fields__[required:], Claim.__struct_defaults__, strict=True))
    values = [
        f"claim.{name} or {defaults[name]!r}" if name in defaults else f"claim.{name}"
        for name in Claim.__struct_fields__
    ]
    return f"local function claim_row(claim) return {{{', '.join(values)}}} end\n"


_GENERATED: Mapping[str, Callable[[], str]] = {
    "claim": _claim_row,
    "enqueue": lambda: f"{_codes(EnqueueResult)}local NORMAL_PRIORITY = {NORMAL}\n",
    "record": lambda: _codes(Recorded),
}
"""What is made of Python's types for a script, before its own text."""

_PARTS: Mapping[str, Sequence[str]] = {
    "record": ("record/jobs", "record/webhooks", "record/deliveries", "record/governor"),
}
"""Scripts whose text is longer than one file: what stands before it. Each part uses only parts before it."""

NAMES = sorted(
    file.name[:-4] for file in _FOLDER.iterdir() if file.name.endswith(".lua") and file.name != "prelude.lua"
)
"""Every script."""


def text_of(name: str, keys: Keys) -> str:
    """The whole text of a script: the names of keys, the prelude, what is generated, its parts, and itself."""
    generated = _GENERATED[name]() if name in _GENERATED else ""
    files = [_read(part) for part in (*_PARTS.get(name, ()), name)]
    return fields.fold("".join([keys.lua(), _read("prelude"), generated, *files]))


def _read(part: str) -> str:
    return (_FOLDER / f"{part}.lua").read_text()


class Scripts:
    """The scripts of one namespace on one connection pool."""

    def __init__(self, redis: Any, keys: Keys) -> None:
        self._redis = redis
        self._root = keys.root
        self._texts = {name: text_of(name, keys) for name in NAMES}
        self._shas = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in self._texts.items()}  # noqa: S324 - Redis names scripts by it

    async def run(self, name: str, /, *, keys: Sequence[str] = (), **arguments: Any) -> Any:
        """Run a script; it reads its arguments by name. `keys` are those that do not carry our hash tag.

        Texts of bytes are given as `codec.blob`: Redis's msgpack knows no binary type.
        """
        command = (self._shas[name], 1 + len(keys), self._root, *keys, _pack(arguments))
        try:
            return await self._redis.evalsha(*command)
        except NoScriptError:
            return await self._redis.eval(self._texts[name], *command[1:])
