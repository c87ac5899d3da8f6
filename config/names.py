"""The names of the variables of settings: `OUTWAIT_POLL__TIME_LIMIT` for `poll.time_limit`."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

PREFIX = "OUTWAIT_"
DELIMITER = "__"


class Variable(NamedTuple):
    """One setting: its variable, the attributes that lead to it, and its field."""

    name: str
    path: tuple[str, ...]
    field: FieldInfo


def variable(*path: str, prefix: str = PREFIX) -> str:
    """The variable of one setting."""
    return prefix + DELIMITER.join(path).upper()


def variables(model: type[BaseModel], prefix: str = PREFIX, path: tuple[str, ...] = ()) -> Iterator[Variable]:
    """Every setting of a model and of its groups, in the order of their definition."""
    for name, field in model.model_fields.items():
        here = (*path, name)
        group = group_of(field)
        if group:
            yield from variables(group, prefix, here)
        else:
            yield Variable(variable(*here, prefix=prefix), here, field)


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a nested group; None for a plain setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def nearest(name: str, known: list[str], prefix: str = PREFIX) -> str | None:
    """The known variable that is most similar to `name`, or None."""
    close = get_close_matches(name.removeprefix(prefix), [other.removeprefix(prefix) for other in known], 1, cutoff=0.7)
    return prefix + close[0] if close else None
