"""Errors of settings, written for the person who can correct them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from outwait.config.masking import masked, masked_url
from outwait.config.names import DELIMITER, PREFIX, nearest, variable, variables

_JSON = {"list_type": "a JSON list", "dict_type": "a JSON object", "model_type": "a JSON object"}

_ALL = "docs/operations.md lists all settings"


class ConfigError(Exception):
    """The settings are invalid. The operator must act; the message names each variable and says what is allowed."""


class Clash(ValueError):
    """Settings that are valid separately but not together; raised in a model's validator.

    Args:
        given: the settings with their paths in the model (`worker__grace`), and their values.
        reason: what must be true, and why.
    """

    def __init__(self, given: Mapping[str, object], reason: str) -> None:
        super().__init__(reason)
        self.given = given


def explain(error: ValidationError, prefix: str = PREFIX, model: type[BaseModel] | None = None) -> str:
    """One line for each invalid value: the variable, what was given, what is allowed.

    Args:
        error: the error from validating `model`.
        prefix: the prefix of its variables.
        model: its settings are suggested for an unknown name.
    """
    known = [name for name, _, _ in variables(model, prefix)] if model else []
    return "\n".join(_line(problem, prefix, known) for problem in error.errors(include_url=False))


def unknown(name: str, known: list[str], prefix: str = PREFIX) -> str:
    """The line for a variable that is not a setting."""
    suggestion = nearest(name, known, prefix)
    if suggestion:
        return f"{name}: there is no such setting; did you mean {suggestion}?"
    group = name.rpartition(DELIMITER)[0]
    siblings = [other for other in known if group and other.rpartition(DELIMITER)[0] == group]
    return f"{name}: there is no such setting; {'there are ' + ', '.join(siblings) if siblings else _ALL}"


def _line(problem: Any, prefix: str, known: list[str]) -> str:
    name = _name(problem["loc"], prefix)
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    cause = problem.get("ctx", {}).get("error")
    match problem["type"]:
        case "missing":
            return f"{name}: is missing"
        case "extra_forbidden":
            return unknown(name, known, prefix)
        case "list_type" | "dict_type" | "model_type" as kind:
            return f"{name}: must be {_JSON[kind]}, and is {_shape(problem['input'])}"
        case _ if isinstance(cause, Clash):
            return _clash(cause, problem["loc"], prefix)
        case _:
            return f"{name}: given {_shown(name, problem['input'])}; {reason}"


def _clash(clash: Clash, loc: tuple[int | str, ...], prefix: str) -> str:
    names = {variable(*map(str, loc), key, prefix=prefix): value for key, value in clash.given.items()}
    values = (masked(name, f"{value:g}" if isinstance(value, float) else value) for name, value in names.items())
    return f"{' and '.join(names)}: given {' and '.join(value or 'nothing' for value in values)}; {clash}"


def _name(loc: tuple[int | str, ...], prefix: str) -> str:
    """The variable of a setting; inside a JSON list with its path in the JSON: OUTWAIT_HANDLERS__ROUTES[0].targets."""
    depth = next((i for i, part in enumerate(loc) if isinstance(part, int)), len(loc))
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc[depth:])
    return (variable(*map(str, loc[:depth]), prefix=prefix) if loc else prefix.rstrip("_")) + inside


def _shown(name: str, given: object) -> str:
    if isinstance(given, Mapping | list):
        return _shape(given)  # it may hold secrets
    return masked(name, masked_url(repr(given)))


def _shape(given: object) -> str:
    match given:
        case str():
            return "other text"
        case Mapping():
            return "a JSON object"
        case list():
            return "a JSON list"
        case _:
            return repr(given)
