"""Writes what is said of settings in docs/operations.md and .env.example, from config/settings.py: `make docs`."""

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
# Copy to .env and uncomment what you change. Variables of the environment win over this file, and this file over
# secret files (OUTWAIT_SECRETS_DIR). `outwait config` shows every setting as it stands, and where it comes from.
# Credentials of providers: docs/providers.md.

"""


def page(text: str) -> str:
    """The page with its tables as they should be."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "\n".join((*_plain(), "", *_steps())) + "\n\n" + END + after


def example() -> str:
    """The whole of .env.example."""
    return INTRODUCTION + "\n".join(_lines()) + "\n"


def _plain() -> Iterator[str]:
    yield "| Variable | Default | What it is |"
    yield "|---|---|---|"
    for one in variables(Settings):
        if one.path[0] not in STEPS or one.path[1] not in StepSettings.model_fields:
            yield f"| `{one.name}` | {_code(_default(*one.path))} | {one.field.description} |"


def _steps() -> Iterator[str]:
    yield "Each step, `SUBMIT`, `POLL`, `CALLBACK` and `DELIVER`, has settings of its own:"
    yield ""
    yield f"| Variable | {' | '.join(STEPS)} | What it is |"
    yield "|---|" + "---|" * (len(STEPS) + 1)
    for one in variables(StepSettings, prefix="OUTWAIT_<STEP>__"):
        defaults = (_code(_default(step, *one.path)) for step in STEPS)
        yield f"| `{one.name}` | {' | '.join(defaults)} | {one.field.description} |"


def _lines() -> Iterator[str]:
    group = ""
    for one in variables(Settings):
        if one.path[0] == "providers":
            continue
        if len(one.path) > 1 and one.path[0] != group:
            group = one.path[0]
            yield ""
        if one.path[0] not in STEPS[1:]:  # what is said of the first step holds for the others
            yield f"# {one.field.description}"
        yield f"#{one.name}={_default(*one.path)}"


def _default(*path: str) -> str:
    """The default as one would write it in a variable."""
    value: Any = Settings.model_fields[path[0]].default
    for name in path[1:]:
        value = getattr(value, name)
    match value:
        case SecretStr():
            return value.get_secret_value()
        case None | [] | {}:
            return ""
        case bool():
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
