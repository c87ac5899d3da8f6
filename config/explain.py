"""The present settings and where each value comes from, for people. Secrets are masked."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from outwait.config.masking import masked
from outwait.config.names import variable, variables
from outwait.config.settings import Settings
from outwait.config.sources import sources

_PROVIDERS = "providers"


class Effective(NamedTuple):
    """One setting: its variable, its value with secrets masked, and where it comes from."""

    name: str
    value: str
    source: str


def effective(settings: Settings) -> list[Effective]:
    """Every setting of this process. Reads the environment and the files again to find each value's source."""
    given = [(source, source()) for source in sources(Settings)]
    rows = []
    for path in _paths(settings):
        name = variable(*path)
        origin = next((source.where(name) for source, values in given if _holds(values, path)), "default")
        rows.append(Effective(name, masked(name, _text(_at(settings, path))), origin))
    return rows


def _paths(settings: Settings) -> Iterator[tuple[str, ...]]:
    for _, path, _ in variables(Settings):
        if path == (_PROVIDERS,):
            yield from ((*path, name, key) for name, values in settings.providers.items() for key in values)
        else:
            yield path


def _holds(values: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def _at(settings: Settings, path: tuple[str, ...]) -> Any:
    value: Any = settings
    for name in path:
        value = value[name] if isinstance(value, Mapping) else getattr(value, name)
    return value


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case bool() | list() | dict():
            return json.dumps(value, default=_plain)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return str(value)
