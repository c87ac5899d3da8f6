"""Prints for people and for scripts. Data goes to standard output, messages go to standard error.

Control and format characters in texts from providers and producers are replaced, or escaped in JSON, so that these
texts cannot control the terminal.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from outwait.config.masking import scrubbed
from outwait.config.printable import escaped, printable
from outwait.worker.model.jobs import Job, JobState


def print_json(value: Any) -> None:
    """Print one indented JSON document on standard output."""
    sys.stdout.write(escaped(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()) + "\n")


def print_line(value: Any) -> None:
    """Print one line of JSON Lines on standard output, and flush it."""
    sys.stdout.write(escaped(msgspec.json.encode(value).decode()) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print a message on standard error."""
    sys.stderr.write(printable(text, keep="\n") + "\n")
    sys.stderr.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print a table, with credentials masked: formatted on a terminal, else as plain columns that are never cut."""
    cells = [[printable(scrubbed(cell)) for cell in row] for row in rows]
    if not cells:
        say(empty)
    elif sys.stdout.isatty():
        _draw(columns, cells)
    else:
        _plain(columns, cells)


def _draw(columns: Sequence[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        # What identifies a row stays in one piece, for copying; the other columns share what is left.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def _plain(columns: Sequence[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[at]) for row in [list(columns), *rows]) for at in range(len(columns))]
    for row in [columns, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def when(seconds: float | None) -> str:
    """A point in time as local time, or a dash."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def span(seconds: float | None) -> str:
    """A length of time in its two largest units: `1h 05m`."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def age(job: Job) -> str:
    """How long the job took, or has taken so far."""
    return span((job.ended or time.time()) - job.created)


STYLES = {
    JobState.QUEUED: "cyan",
    JobState.WAITING: "yellow",
    JobState.UNCERTAIN: "bold magenta",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.EXPIRED: "red",
    JobState.CANCELLED: "dim",
    "delivered": "green",
    "pending": "yellow",
    "dead": "red",
    "ok": "green",
    "warning": "yellow",
    "error": "bold red",
}
"""Colours of states, by their names in rich."""
