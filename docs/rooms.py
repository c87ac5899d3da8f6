"""Draws which room imports which, from the code: `make check` prints it, `make docs` writes it into docs/design.md.

The rooms and their storeys, from the top, are those of import-linter's contracts in pyproject.toml. An arrow that does
not lead to a lower storey is an error, so there is no circle; so are more rooms than anybody keeps in mind.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "design.md"
BLOCK = re.compile(r"(?<=<!-- rooms: `make docs` writes this -->\n).*?(?=<!-- end of rooms -->)", re.DOTALL)
"""What stands between the markers in the page."""

MAX_ROOMS = 18


def storeys() -> dict[str, int]:
    """Each room, without `outwait.`, and its storey: 0 is the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {one["containers"][0]: one["layers"] for one in contracts if one["type"] == "layers"}
    return {room: storey for storey, rooms in enumerate(_storeys(layers)) for room in rooms}


def _storeys(layers: dict[str, list[str]]) -> Iterator[list[str]]:
    for layer in layers["outwait"]:
        if layer == "worker":
            yield from ([f"worker.{room}" for room in _siblings(each)] for each in layers["outwait.worker"])
        elif layer == "tasks":
            yield from (["tasks"], ["tasks.handlers"])
        elif layer != "__main__":
            yield _siblings(layer)


def _siblings(layer: str) -> list[str]:
    return re.split(r"\s*[|:]\s*", layer.replace("(", "").replace(")", ""))


def arrows(rooms: dict[str, int]) -> dict[str, list[str]]:
    """For each room those that it imports, from the top."""
    graph = grimp.build_graph("outwait", exclude_type_checking_imports=True, cache_dir=None)
    pairs = {
        (_room(importer, rooms), _room(imported, rooms))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return {room: [other for other in rooms if other != room and (room, other) in pairs] for room in rooms}


def _room(module: str, rooms: dict[str, int]) -> str:
    """The innermost room of a module; empty for what is above the rooms, as `outwait.worker` itself is."""
    name = module.removeprefix("outwait.")
    inside = [room for room in rooms if f"{name}.".startswith(f"{room}.")]
    return max(inside, key=len, default="")


def problems(rooms: dict[str, int], drawn: dict[str, list[str]]) -> Iterator[str]:
    """What is wrong with the house."""
    if len(rooms) > MAX_ROOMS:
        yield f"{len(rooms)} rooms are more than {MAX_ROOMS}"
    for room, others in drawn.items():
        yield from (f"{room} imports {other}, which is not below it" for other in others if rooms[other] <= rooms[room])


def picture(drawn: dict[str, list[str]]) -> str:
    """One line a room, from the top: what it imports."""
    width = max(map(len, drawn))
    lines = [f"{room:{width}} -> {', '.join(others) or '(nothing of ours)'}" for room, others in drawn.items()]
    return "\n".join([*lines, "", f"{len(drawn)} rooms, {sum(map(len, drawn.values()))} arrows"])


def page(text: str, drawn: dict[str, list[str]]) -> str:
    """The page with this picture between its markers."""
    return BLOCK.sub(lambda _: f"\n```\n{picture(drawn)}\n```\n\n", text)


def main() -> None:
    """Print the picture, or write it with `--write`; code 1 if something is wrong."""
    rooms = storeys()
    drawn = arrows(rooms)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(PAGE.read_text(), drawn))
    else:
        print(picture(drawn))
    if found := "\n".join(problems(rooms, drawn)):
        sys.exit(found)


if __name__ == "__main__":
    main()
