"""Writes the settings tables of docs/operations.md, and .env.example, from config/settings.py: `make docs`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from outwait.config.groups import StepSettings
from outwait.config.names import variables
from outwait.config.settings import Settings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operations.md"
EXAMPLE = ROOT / ".env.example"
STEPS = ("submit", "poll", "callback", "deliver")
BEGIN, END = "<!-- settings: written by `make docs` -->\n", "<!-- /settings -->\n"

INTRODUCTION = """\
# Copy this file to .env and uncomment the lines that you change. Environment variables have precedence over this file,
# and this file over secret files (OUTWAIT_SECRETS_DIR). `outwait config` shows every setting, its value and its source.
# Credentials of providers: docs/providers.md.

"""


def page(text: str) -> str:
    """The page with up-to-date tables."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "\n".join((*_plain(), "", *_steps())) + "\n\n" + END + after


def example() -> str:
    """The content of .env.example."""
    return INTRODUCTION + "\n".join(_lines()) + "\n"


def _plain() -> Iterator[str]:
    yield "| Variable | Default | What it is |"
    yield "|---|---|---|"
    for variable in variables(Settings):
        if variable.path[0] not in STEPS or variable.path[1] not in StepSettings.model_fields:
            yield f"| `{variable.name}` | {_code(_default(*variable.path))} | {variable.field.description} |"


def _steps() -> Iterator[str]:
    yield "Each step, `SUBMIT`, `POLL`, `CALLBACK` and `DELIVER`, has its own settings:"
    yield ""
    yield f"| Variable | {' | '.join(STEPS)} | What it is |"
    yield "|---|" + "---|" * (len(STEPS) + 1)
    for variable in variables(StepSettings, prefix="OUTWAIT_<STEP>__"):
        defaults = (_code(_default(step, *variable.path)) for step in STEPS)
        yield f"| `{variable.name}` | {' | '.join(defaults)} | {variable.field.description} |"


def _lines() -> Iterator[str]:
    group = ""
    for variable in variables(Settings):
        if variable.path[0] == "providers":
            continue
        if len(variable.path) > 1 and variable.path[0] != group:
            group = variable.path[0]
            yield ""
        if variable.path[0] not in STEPS[1:]:  # the descriptions of the first step apply to the others
            yield f"# {variable.field.description}"
        yield f"#{variable.name}={_default(*variable.path)}"


def _default(*path: str) -> str:
    """The default, written as the value of a variable."""
    value: Any = Settings.model_fields[path[0]].default
    for name in path[1:]:
        value = getattr(value, name)
    match value:
        case SecretStr():
            return value.get_secret_value()
        case None | [] | {}:
            return ""
        case bool() | list():
            return json.dumps(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _code(value: str) -> str:
    return f"`{value}`" if value else ""


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    EXAMPLE.write_text(example())
