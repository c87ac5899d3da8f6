"""A moment as a person types it: `30m` (ago), or a date."""

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
    """Seconds since 1970."""

    at: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a length of time ago, or an ISO date and time (local, unless it says its zone).

        Raises:
            typer.BadParameter: it is neither.
        """
        if ago := _AGO.fullmatch(text):
            return cls(time.time() - float(ago[1]) * _UNITS[ago[2]])
        try:
            return cls(datetime.fromisoformat(text).timestamp())
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is neither a time ago (30m, 2h, 1d) nor a date (2026-01-31T12:00)"
            ) from None


def moment(help_text: str) -> Any:
    """An option that is a moment."""
    return typer.Option(parser=Moment.parse, metavar="WHEN", help=help_text)
