"""Puts the Lua scripts together, loads and runs them; survives a Redis that has forgotten them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec
from redis.exceptions import DataError, NoScriptError

from outwait.worker.model.jobs import NORMAL
from outwait.worker.store import fields
from outwait.worker.store.codes import EnqueueResult, Recorded
from outwait.worker.store.keys import Keys

_FOLDER = resources.files("outwait.worker.store") / "lua"

_CODES = {code.name: str(code.value) for codes in (EnqueueResult, Recorded) for code in codes} | {
    "NORMAL_PRIORITY": str(NORMAL)
}

_NAME = re.compile(rf"\b(?:(?:{'|'.join(fields.TABLES)})\.\w+|[A-Z][A-Z_]+)\b")
"""What may be the name of a constant in a script: of a field, a key or a code."""

_pack = msgspec.msgpack.Encoder().encode


_PARTS: Mapping[str, Sequence[str]] = {
    "record": ("record/jobs", "record/webhooks", "record/deliveries", "record/governor"),
}
"""Scripts whose text is longer than one file: what stands before it. Each part uses the prelude and parts before it."""

ARGUMENT_MAX = 512 * 1024 * 1024
"""Bytes of one argument at most, Redis's `proto-max-bulk-len`: it answers a larger one by closing the connection."""

NAMES = sorted(
    file.name[:-4] for file in _FOLDER.iterdir() if file.name.endswith(".lua") and file.name != "prelude.lua"
)
"""Every script."""


def text_of(name: str, keys: Keys) -> str:
    """The whole text of a script: the prelude, its parts, and itself, with constants in place of their names."""
    text = "".join(_read(part) for part in ("prelude", *_PARTS.get(name, ()), name))
    return _fold(text, {**keys.lua(), **fields.lua(), **_CODES})


def _fold(text: str, constants: Mapping[str, str]) -> str:
    """Put constants where a script has their names.

    Lua 5.1 has no constants, and no room for so many local variables; with them, each call of a script would take some
    microseconds longer. Raises KeyError for a name like a field's that is none.
    """
    return _NAME.sub(lambda name: constants[name[0]] if "." in name[0] else constants.get(name[0], name[0]), text)


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
        packed = _pack(arguments)
        if len(packed) > ARGUMENT_MAX:
            raise DataError(f"{len(packed)} bytes are more than Redis takes in one argument, {ARGUMENT_MAX}")
        command = (self._shas[name], 1 + len(keys), self._root, *keys, packed)
        try:
            return await self._redis.evalsha(*command)
        except NoScriptError:
            return await self._redis.eval(self._texts[name], *command[1:])
