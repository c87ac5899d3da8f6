"""No regular expression takes long for any text: every pattern in the project is found, and its work is counted.

`re` backtracks and keeps the interpreter's lock: a pattern whose work grows with the square of a text stops all jobs of
a worker, or the whole web process. A text of double length may cost double the steps, not four times as many.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError

from tests.attacks.steps import ENOUGH, Pattern
from tests.stack import ROOT

SIZE = 32
"""Characters of the shorter text."""

FUNCTIONS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
ANCHORED = {"match", "fullmatch"}

NOT_CONSTANT = {
    "place_of: re.fullmatch(pattern, cursor)": "one of the two constants of store/cursors.py, found there",
    "_methods: re.fullmatch(re.sub('\\\\{\\\\w+\\\\}', '[^/]+', template), path)": "a path of ours; see below",
}
"""Patterns that are made when they are used, and why their work is bounded."""


class Use(NamedTuple):
    """A pattern, where it is, and whether it is tried at the beginning of a text only."""

    where: str
    pattern: "re.Pattern[Any]"
    anchored: bool


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    """Every module of ours, parsed. `outwait` has links to the other folders."""
    files = {}
    for folder in ("config", "outwait", "tasks", "worker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            files[name if folder == "outwait" else f"outwait.{name}"] = (path, ast.parse(path.read_text()))
    return files


def evaluated(module: str, node: ast.expr) -> Any:
    """What a module's expression is: one of constants and of the module's names."""
    code = compile(ast.Expression(node), module, "eval")
    return eval(code, vars(importlib.import_module(module)))  # noqa: S307 - our own source


@cache
def methods() -> dict[str, set[str]]:
    """How the patterns that have names are used, by name, wherever it is."""
    used: dict[str, set[str]] = {}
    for _, tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in FUNCTIONS and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
    return used


def calls() -> Iterator[tuple[str, ast.AST, ast.Call]]:
    """Each call of a function of `re`, and the statement that it is in."""
    for module, (_, tree) in modules().items():
        for statement in ast.walk(tree):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign):
                for node in ast.walk(statement):
                    if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"re.{name}" for name in FUNCTIONS}:
                        yield module, statement, node


@cache
def patterns() -> tuple[list[Use], set[str]]:
    """Every pattern of Python's engine, and the calls whose pattern is no constant."""
    uses: dict[tuple[str, str], Use] = {}
    unknown = set()
    for module, statement, call in calls():
        function = ast.unparse(call.func).removeprefix("re.")
        flags = next((keyword.value for keyword in call.keywords if keyword.arg == "flags"), None)
        flags = flags or (call.args[1] if function == "compile" and len(call.args) > 1 else None)
        flags = flags or (call.args[2] if function in ANCHORED | {"search"} and len(call.args) > 2 else None)
        try:
            pattern = re.compile(evaluated(module, call.args[0]), evaluated(module, flags) if flags else 0)
        except NameError:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                unknown.add(f"{statement.name}: {ast.unparse(call)}")
            continue
        names = [target.id for target in getattr(statement, "targets", []) if isinstance(target, ast.Name)]
        kinds = {function} if function != "compile" else methods().get(names[0], {"search"}) if names else {"search"}
        uses[module, ast.unparse(call)] = Use(f"{module}:{call.lineno}", pattern, kinds <= ANCHORED)
    return list(uses.values()), unknown


def growth(use: Use) -> tuple[float, str]:
    """How much the worst text's work grows when it is twice as long; and that text."""
    pattern = Pattern(use.pattern)
    worst = (0.0, "")
    for head, word, tail in pattern.attacks():
        texts = [head + word * (size // len(word)) + tail for size in (SIZE, 2 * SIZE)]
        small, large = (pattern.work(text, anchored=use.anchored)[0] for text in texts)
        if large > 8 * len(texts[1]):
            worst = max(worst, (large / small if large < ENOUGH else float("inf"), texts[0]))
    return worst


BAD = {
    "options, cubic": (
        r"([?&][^=&\s]*(?:secret|token|key|password|jwt|auth|signature|\bsig(?==))[^=&\s]*=)[^&\s\"']*",
        re.IGNORECASE,
    ),
    "URLs, quadratic": (
        r"\b([a-z][a-z0-9+.-]*)(?:://|%3a%2f%2f|:\\/\\/)(?:[^\s\"'<>/\\?#@]*@)?([^\s\"'<>/\\?#%@]*)([^\s\"'<>]*)",
        re.IGNORECASE,
    ),
    "passwords, quadratic": (r"(://[^:/@\s]*):\S*@", 0),
    "nested": (r"(?:a+)+$", 0),
}


@pytest.mark.parametrize("name", BAD)
def test_the_patterns_that_took_minutes_are_seen_to(name: str) -> None:
    """They are those of release 0.2.0."""
    assert growth(Use(name, re.compile(*BAD[name]), anchored=False))[0] > 3


@pytest.mark.parametrize("use", patterns()[0], ids=lambda use: use.where)
def test_a_text_of_double_length_costs_double_the_steps(use: Use) -> None:
    factor, text = growth(use)
    assert factor < 2.6, f"{use.pattern.pattern!r} for {text!r} and twice as much"


@pytest.mark.parametrize("use", patterns()[0], ids=lambda use: use.where)
def test_the_counting_engine_finds_what_re_finds(use: Use) -> None:
    if isinstance(use.pattern.pattern, bytes):
        use = use._replace(pattern=re.compile(use.pattern.pattern.decode(), use.pattern.flags & ~re.ASCII))
    pattern = Pattern(use.pattern)
    for head, word, tail in islice(pattern.attacks(), 80):
        text = head + word * 3 + tail
        match = use.pattern.match(text) if use.anchored else use.pattern.search(text)
        assert pattern.work(text, anchored=use.anchored)[1] == (match.span() if match else None), text


def test_every_pattern_is_found() -> None:
    assert len(patterns()[0]) > 40
    assert patterns()[1] == set(NOT_CONSTANT)


def test_patterns_of_fields_are_matched_by_an_engine_that_does_not_backtrack() -> None:
    """That of pydantic's core (Rust's `regex`) is linear by construction, and refuses what would need backtracking."""
    found = 0
    for module, (path, tree) in modules().items():
        assert "regex_engine" not in path.read_text(), f"{path} chooses another engine"
        for node in ast.walk(tree):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "pattern":
                    assert ast.unparse(node.func) in {"Field", "StringConstraints", "Path", "Query", "Header"}
                    TypeAdapter(Annotated[str, StringConstraints(pattern=evaluated(module, keyword.value))])
                    found += 1
    assert found > 10
    with pytest.raises(SchemaError, match="look-around"):
        TypeAdapter(Annotated[str, StringConstraints(pattern="(?=a)")])


def test_a_path_is_compared_part_by_part() -> None:
    """`[^/]+` between slashes: its work does not grow with more than the length."""
    template = re.compile("/v1/jobs/[^/]+/deliveries/[^/]+/replay")
    assert growth(Use("problems", template, anchored=True))[0] < 2.6
