"""A point in time as a person types it: a time ago (`30m`), or a date."""

import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@dataclass(frozen=True)
class Moment:
    """A point in time, in seconds since 1970."""

    at: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a time ago, or a date and time in ISO 8601 (local time if it names no zone).

        Raises:
            typer.BadParameter: the text is neither.
        """
        if ago := _AGO.fullmatch(text):
            return cls(time.time() - float(ago[1]) * _UNITS[ago[2]])
        try:
            return cls(datetime.fromisoformat(text).timestamp())
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is neither a time ago (30m, 2h, 1d) nor a date (2026-01-31T12:00)"
            ) from None


def duration(help_text: str) -> Any:
    """An option whose value is a time, in seconds."""
    return typer.Option(parser=_seconds, metavar="TIME", help=help_text)


def _seconds(text: str | float) -> float:
    if isinstance(text, float):
        return text  # the default
    if time_given := _AGO.fullmatch(text):
        return float(time_given[1]) * _UNITS[time_given[2]]
    raise typer.BadParameter(f"{text!r} is no time (30m, 12h, 90d)")


def moment(help_text: str) -> Any:
    """An option whose value is a point in time."""
    return typer.Option(parser=Moment.parse, metavar="WHEN", help=help_text)
