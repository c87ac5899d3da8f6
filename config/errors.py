"""A wrong setting, told in the words of the person who can mend it."""

from pydantic import ValidationError

_HIDDEN = ("secret", "token", "key", "password", "jwt", "auth", "url")


class ConfigError(Exception):
    """The settings cannot be used. The operator acts; the message names each variable and says what is allowed."""


def explain(error: ValidationError, prefix: str) -> str:
    """One line a wrong value: the variable, what was given, what is allowed."""
    return "\n".join(_line(item["loc"], item["msg"], item.get("input"), prefix) for item in error.errors())


def _line(loc: tuple[int | str, ...], message: str, given: object, prefix: str) -> str:
    name = prefix + "__".join(str(part).upper() for part in loc)
    shown = "(hidden)" if any(word in name.lower() for word in _HIDDEN) else repr(given)
    return f"{name}: given {shown}; {message.removeprefix('Value error, ')}"
