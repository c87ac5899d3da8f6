"""Shows jobs while they run: as a live table on a terminal, else as one line for each change (plain or JSON)."""

import sys
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from outwait.cli.output import STYLES, age, clean, print_line
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
    return clean(f"{moment}  {job.id}  {job.provider} {job.operation}  {job.state}{status}{error}")


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

        grid = Grid(box=None, header_style="bold", pad_edge=False, expand=True)
        for column in ("job", "provider", "operation", "state", "provider's status", "polls", "time"):
            grid.add_column(column, no_wrap=True, justify="right" if column in ("polls", "time") else "left")
        room = max(self._console.height - 5, 3)
        for job in sorted(jobs, key=_open_first)[:room]:
            grid.add_row(*(Text(clean(cell), style=STYLES.get(cell, "")) for cell in self._cells(job)))
        ended = sum(job.state.ended for job in jobs)
        bar = ProgressBar(total=max(len(jobs), 1), completed=ended, width=40)
        return Group(grid, Text(""), bar, Text(f"{ended} of {len(jobs)} ended   {summary(jobs)}"))

    @staticmethod
    def _cells(job: Job) -> tuple[str, ...]:
        status = job.error.code if job.error else job.provider_status or ""
        return job.id, job.provider, job.operation, job.state, status, str(job.ledger.polls), age(job)


def _open_first(job: Job) -> tuple[bool, float]:
    return job.state.ended, -(job.ended or 0)


def summary(jobs: Iterable[Job]) -> str:
    """How many jobs are in each state: `3 waiting, 9 succeeded`."""
    counts = Counter(job.state for job in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])
