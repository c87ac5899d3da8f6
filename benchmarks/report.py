"""How results are written down: figures over rounds, bars met or missed, a table, a JSON file."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped] # ships no types
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured quantity over all rounds."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{_short(self.median)}  ({_short(self.lowest)} to {_short(self.highest)})"


@dataclass(frozen=True)
class Bar:
    """A target of design.md, and what was measured. `is_maximum` is False for a minimum, where more is better."""

    name: str
    limit: float
    measured: float
    unit: str = ""
    is_maximum: bool = True

    @property
    def passed(self) -> bool:
        """Whether the target is reached."""
        return self.measured <= self.limit if self.is_maximum else self.measured >= self.limit


def figure(values: Sequence[float]) -> Figure:
    """The median, lowest and highest value."""
    return Figure(round(median(values), 3), round(min(values), 3), round(max(values), 3))


def machine(server: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the machine, without its name. `server` is Redis's INFO."""
    names = ("celery", "kombu", "redis", "httpx", "aiohttp", "msgspec")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "server": f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server['redis_version']}",
        "load_average": [round(load, 1) for load in os.getloadavg()],
        **{name: version(name) for name in names},
    }


def finish(name: str, title: str, rows: Mapping[str, Mapping[str, Any]], bars: Sequence[Bar], **more: Any) -> None:
    """Print the measurements and write `results/NAME.json`.

    Args:
        name: name of the file.
        title: title of the table.
        rows: figures by contender and column.
        bars: the targets.
        more: facts that only the file contains.
    """
    _print(title, rows, bars)
    targets = [{**asdict(bar), "measured": round(bar.measured, 3), "passed": bar.passed} for bar in bars]
    document = {**more, "figures": rows, "bars": targets}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=2, default=asdict) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}")


def _print(title: str, rows: Mapping[str, Mapping[str, Any]], bars: Sequence[Bar]) -> None:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("", *columns, title=title, title_justify="left")
    for label, row in rows.items():
        table.add_row(label, *(_cell(row.get(column)) for column in columns))
    targets = Table("target", "limit", "measured", "", title="Targets", title_justify="left")
    for bar in bars:
        limit = f"{'at most' if bar.is_maximum else 'at least'} {_short(bar.limit)} {bar.unit}"
        verdict = "[green]passed[/]" if bar.passed else "[red]failed[/]"
        targets.add_row(bar.name, limit, f"{_short(bar.measured)} {bar.unit}", verdict)
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table, targets)


def _cell(value: Any) -> str:
    return "" if value is None else _short(value) if isinstance(value, int | float) else str(value)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
