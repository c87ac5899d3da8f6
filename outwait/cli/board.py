"""Shows jobs while they run: as a live table on a terminal, else as one line for each change (plain or JSON)."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from outwait.cli.output import STYLES, age, print_line
from outwait.config.printable import printable
from outwait.worker.model.jobs import Job, JobState


class Board(Protocol):
    """Where jobs are shown. Used as a context manager."""

    def show(self, jobs: Iterable[Job]) -> None:
        """Show the present state of the jobs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def board(*, as_json: bool = False) -> Board:
    """The board for this standard output; `as_json` prints each change as a line of JSON."""
    if as_json:
        return Lines(print_line)
    if sys.stdout.isatty():
        return Table()
    return Lines(lambda job: sys.stdout.write(_line(job) + "\n"))


def _line(job: Job) -> str:
    status = f" ({job.provider_status})" if job.provider_status else ""
    error = f"  {job.error.code}: {job.error.message}" if job.error else ""
    moment = time.strftime("%H:%M:%S")
    return printable(f"{moment}  {job.id}  {job.provider} {job.operation}  {job.state}{status}{error}")


class Lines:
    """Writes a line for each change of a job's state or provider status."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._last: dict[str, tuple[JobState, str | None]] = {}

    def show(self, jobs: Iterable[Job]) -> None:
        """Print the jobs that changed."""
        for job in jobs:
            status = job.state, job.provider_status
            if self._last.get(job.id) != status:
                self._last[job.id] = status
                self._write(job)
        sys.stdout.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Table:
    """A live table with a progress bar: open jobs first, then those that ended last, as many as fit the window."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def show(self, jobs: Iterable[Job]) -> None:
        """Redraw the table."""
        self._live.update(self._drawn(list(jobs)), refresh=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def _drawn(self, jobs: list[Job]) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table as Grid
        from rich.text import Text

        room = max(self._console.height - 5, 3)
        rows = [_cells(job) for job in sorted(jobs, key=_open_first)[:room]]
        columns = fitting(rows, self._console.width)
        grid = Grid(box=None, header_style="bold", pad_edge=False, expand=True)
        for column in columns:
            grid.add_column(column, overflow="fold", justify="right" if column in ("polls", "time") else "left")
        for row in rows:
            grid.add_row(*(Text(printable(row[column]), style=STYLES.get(row[column], "")) for column in columns))
        ended = sum(job.state.ended for job in jobs)
        bar = ProgressBar(total=max(len(jobs), 1), completed=ended, width=40)
        return Group(grid, Text(""), bar, Text(f"{ended} of {len(jobs)} ended   {summary(jobs)}"))


COLUMNS = ("job", "provider", "operation", "state", "provider's status", "polls", "time")

FIRST_TO_GO = ("operation", "polls", "time", "provider", "provider's status")
"""Columns that a narrow window does without, in this order. A job's id and its state are always shown."""


def _cells(job: Job) -> dict[str, str]:
    status = job.error.code if job.error else job.provider_status or ""
    cells = (job.id, job.provider, job.operation, job.state, status, str(job.ledger.polls), age(job))
    return dict(zip(COLUMNS, cells, strict=True))


def fitting(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """The columns that fit a window of so many characters, with nothing cut."""
    columns = list(COLUMNS)
    widths = {column: max(len(text) for text in (column, *(row[column] for row in rows))) for column in columns}
    for column in FIRST_TO_GO:
        if sum(widths[column] + GAP for column in columns) - GAP <= width:
            break
        columns.remove(column)
    return columns


GAP = 2
"""Characters between two columns."""


def _open_first(job: Job) -> tuple[bool, float]:
    return job.state.ended, -(job.ended or 0)


def summary(jobs: Iterable[Job]) -> str:
    """How many jobs are in each state: `3 waiting, 9 succeeded`."""
    counts = Counter(job.state for job in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])
