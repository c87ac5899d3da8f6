"""The user's handler functions: how a function is marked, and how marked functions are loaded."""

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from outwait.config.errors import ConfigError
from outwait.worker.model.targets import NAME

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__outwait_handler__"


@dataclass(frozen=True, slots=True)
class Function:
    """A marked function; a sync function runs in a thread."""

    name: str
    call: Callable[..., Any]
    module: str
    is_async: bool
    takes_envelope: bool


def handler(name: str) -> Callable[[F], F]:
    """Mark a function, sync or async, as the handler of this name.

    The function takes the envelope, or nothing; what it returns is ignored, and what it raises makes the delivery
    fail. It is found if its module is listed in OUTWAIT_HANDLERS__MODULES.

    Raises:
        TypeError: it cannot be called so, or it is a generator, which would run nothing.
        ValueError: the name is not valid, or the function has another one already.
    """
    if not isinstance(name, str):
        raise TypeError('write @handler("name"), with the name by which targets mean this function')
    if not NAME.fullmatch(name):
        raise ValueError(f"handler name {name!r} must match {NAME.pattern}")

    def mark(function: F) -> F:
        _check(name, function)
        if (first := getattr(function, _MARK, name)) != name:
            raise ValueError(f"this function is handler {first!r} already; write another one for {name!r}")
        setattr(function, _MARK, name)
        return function

    return mark


def load(modules: Sequence[str]) -> dict[str, Function]:
    """Import the modules and find the functions marked in them, by name. They may be in the working folder too.

    Raises:
        ConfigError: a module cannot be imported or marks nothing, or two functions have one name.
    """
    _look_in_working_folder()
    functions: dict[str, Function] = {}
    for module in modules:
        marked = _marked(_import(module))
        if not marked:
            raise _wrong(f"module {module!r} has no function marked @handler; list the module that defines it")
        for function in marked:
            other = functions.setdefault(function.name, function)
            if other.call is not function.call:
                raise _wrong(f"{other.module!r} and {function.module!r} both mark a handler {function.name!r}")
    return functions


def _look_in_working_folder() -> None:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that the user's `config.py` or `redis.py` hides no installed package


def _check(name: str, function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"handler {name!r} is a generator: calling it would run nothing; do not yield in it")
    if not (_accepts(function, None) or _accepts(function)):
        raise TypeError(f"handler {name!r} must take one parameter, the envelope, or none")


def _accepts(function: Callable[..., Any], *arguments: object) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise _wrong(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from error


def _marked(module: ModuleType) -> list[Function]:
    # A static look-up: what else stands in a user's module may be a proxy that fails when it is asked for anything.
    marks = ((value, inspect.getattr_static(value, _MARK, None)) for value in vars(module).values())
    return [
        Function(name, call, module.__name__, inspect.iscoroutinefunction(call), _accepts(call, None))
        for call, name in marks
        if name is not None
    ]


def _wrong(problem: str) -> ConfigError:
    return ConfigError(f"OUTWAIT_HANDLERS__MODULES: {problem}")
