"""Writes the table of docs/licences.md, the licences of what requirements.lock installs, from the packages' own words.

A package that this platform or Python does not install keeps its row: `make docs`.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- licences: written by `make docs` -->\n", "<!-- /licences -->\n"
HEADER = "| Package | Version | Licence | Only where |\n|---|---|---|---|\n"


def page(text: str) -> str:
    """The page with an up-to-date table."""
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    rows = "".join(_rows(_licences(table)))
    return f"{before}{BEGIN}\n{HEADER}{rows}\n{END}{after}"


def _licences(table: str) -> dict[str, str]:
    """The licence of each package that stands in a table, by name and version."""
    cells = (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| "))
    return {f"{name}=={version}": licence for name, version, licence, *_ in cells}


def _rows(known: Mapping[str, str]) -> Iterator[str]:
    for line in LOCK.read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix(" \\"))
            version = str(requirement.specifier).removeprefix("==")
            licence = _installed(requirement.name, version) or known.get(f"{requirement.name}=={version}", "unknown")
            yield f"| {requirement.name} | {version} | {licence} | {_where(requirement)} |\n"


def _where(requirement: Requirement) -> str:
    return f"`{requirement.marker}`" if requirement.marker else ""


def _installed(name: str, version: str) -> str:
    """What the installed package says of its licence; empty if this version is not installed here."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return ""
    if said["Version"] != version:
        return ""
    classified = [line for line in said.get_all("Classifier", []) if line.startswith("License :: ")]
    names = ", ".join(line.rpartition(" :: ")[2] for line in classified)
    return said["License-Expression"] or names or (said["License"] or "unknown").splitlines()[0]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
