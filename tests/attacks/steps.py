"""Counts the steps that a backtracking engine takes for a pattern: work is measured without a clock.

The engine here walks the parse tree of `re` as `re` itself does, without its short cuts, so it counts no less. What it
finds is what `re` finds (test_patterns.py compares them).
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from re import _constants as sre  # type: ignore[attr-defined] # the parse tree has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

ENOUGH = 100_000
"""Steps after which nobody counts any more."""

Nodes = Sequence[tuple[Any, Any]]
Then = Callable[[int], int | None]

_CHARACTER = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
_CATEGORIES = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_WORD: lambda letter: letter.isalnum() or letter == "_",
    sre.CATEGORY_NOT_DIGIT: lambda letter: not letter.isdecimal(),
    sre.CATEGORY_NOT_SPACE: lambda letter: not letter.isspace(),
    sre.CATEGORY_NOT_WORD: lambda letter: not (letter.isalnum() or letter == "_"),
}


class TooMuch(Exception):
    """More steps than `ENOUGH`."""


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Room for a match, for its time only: what recurses in C must not have it, since it ends the process then."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 10_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class Pattern:
    """One pattern, parsed."""

    def __init__(self, pattern: "re.Pattern[Any]") -> None:
        given = pattern.pattern
        self.text = given.decode("latin-1") if isinstance(given, bytes) else given
        self.flags = pattern.flags & ~(re.UNICODE | re.ASCII)
        self.nodes: Nodes = list(parser.parse(self.text, self.flags))

    def work(self, text: str, *, anchored: bool) -> tuple[int, tuple[int, int] | None]:
        """Steps for a text, and the first match: at the beginning only, or as `sub` does everywhere."""
        run = _Run(text, self.flags)
        first: tuple[int, int] | None = None
        place = 0
        try:
            with _deep_recursion():
                while place <= len(text):
                    end = run.match(self.nodes, 0, place, lambda at: at)
                    if first is None and end is not None:
                        first = (place, end)
                    if anchored:
                        break
                    place = end if end is not None and end > place else place + 1
        except TooMuch:
            return ENOUGH, first
        return run.steps, first

    def attacks(self) -> Iterator[tuple[str, str, str]]:
        """Texts that make bad patterns slow: what comes before, what is repeated, what comes after."""
        letters = self._letters()
        heads = ["", *dict.fromkeys(sample(self.nodes[:end], letters) for end in range(1, len(self.nodes) + 1))]
        bodies = [sample(part, letters) for part in _sequences(self.nodes)]
        words = [word for word in dict.fromkeys([*letters, *bodies, *heads, *_words(self.nodes)]) if word]
        for head in heads[:4]:
            for word in words[:24]:
                for tail in ("", "\0"):
                    yield head, word, tail
        for one in letters[:12]:
            for other in letters[:12]:
                yield heads[min(1, len(heads) - 1)], one + other, "\0"

    def _letters(self) -> list[str]:
        """One character of each kind that the pattern tells from others."""
        tests = list(_tests(self.nodes))
        pool = {chr(arg) for op, arg in tests if op is sre.LITERAL} | set(" a7_-./:@?&=#\"'<>\\%\n\0")
        run = _Run("", self.flags)
        kinds: dict[tuple[bool, ...], str] = {}
        for letter in sorted(pool):
            kind = tuple(run.fits(op, arg, letter) for op, arg in tests)
            kinds.setdefault((*kind, _CATEGORIES[sre.CATEGORY_WORD](letter)), letter)
        return list(kinds.values())


class _Run:
    """One text, and the steps so far."""

    def __init__(self, text: str, flags: int) -> None:
        self._text = text
        self._flags = flags
        self.steps = 0

    def match(self, nodes: Nodes, i: int, place: int, then: Then) -> int | None:  # noqa: PLR0911 - one for each kind
        """Where a match of nodes[i:] that begins here ends, if `then` agrees."""
        self._step(1)
        if i == len(nodes):
            return then(place)
        op, arg = nodes[i]

        def rest(at: int) -> int | None:
            return self.match(nodes, i + 1, at, then)

        if op in _CHARACTER:
            fits = place < len(self._text) and self.fits(op, arg, self._text[place])
            return rest(place + 1) if fits else None
        if op in _REPEATS:
            return self._repeat(op, *arg, place, rest)
        if op is sre.SUBPATTERN:
            return self.match(arg[3], 0, place, rest)
        if op is sre.BRANCH:
            ends = (self.match(branch, 0, place, rest) for branch in arg[1])
            return next((end for end in ends if end is not None), None)
        if op is sre.ATOMIC_GROUP:
            end = self.match(arg, 0, place, lambda at: at)
            return None if end is None else rest(end)
        return rest(place) if self._holds(op, arg, place) else None

    def fits(self, op: Any, arg: Any, letter: str) -> bool:
        """Whether a node that stands for one character takes this one."""
        if self._flags & re.IGNORECASE:
            return any(self._takes(op, arg, each) for each in {letter, letter.lower(), letter.upper()})
        return self._takes(op, arg, letter)

    def _takes(self, op: Any, arg: Any, letter: str) -> bool:
        if op is sre.LITERAL:
            return letter == chr(arg)
        if op is sre.NOT_LITERAL:
            return letter != chr(arg)
        if op is sre.ANY:
            return letter != "\n" or bool(self._flags & re.DOTALL)
        if op is sre.RANGE:
            return bool(arg[0] <= ord(letter) <= arg[1])
        if op is sre.CATEGORY:
            return bool(_CATEGORIES[arg](letter))
        negated = arg[0][0] is sre.NEGATE
        return any(self._takes(*item, letter) for item in arg[negated:]) != negated

    def _repeat(self, op: Any, low: int, high: Any, body: Nodes, place: int, rest: Then) -> int | None:
        if len(body) == 1 and body[0][0] in _CHARACTER and op is not sre.MIN_REPEAT:
            end, limit = place, min(len(self._text), place + int(high))
            while end < limit and self.fits(*body[0], self._text[end]):
                end += 1
            self._step(end - place)
            ends = range(end, place + low - 1, -1) if op is sre.MAX_REPEAT else (end,) * (end >= place + low)
            return next((found for at in ends if (found := rest(at)) is not None), None)
        if op is sre.POSSESSIVE_REPEAT:
            return self._possessive(low, high, body, place, rest)

        def again(count: int, at: int) -> int | None:
            def more(end: int) -> int | None:
                return again(count + 1, end) if end != at or count < low else None

            tries: list[Callable[[], int | None]] = [
                lambda: self.match(body, 0, at, more) if count < int(high) else None,
                lambda: rest(at) if count >= low else None,
            ]
            if op is sre.MIN_REPEAT:
                tries.reverse()
            return next((end for attempt in tries if (end := attempt()) is not None), None)

        return again(0, place)

    def _possessive(self, low: int, high: Any, body: Nodes, place: int, rest: Then) -> int | None:
        count = 0
        while count < int(high) and (end := self.match(body, 0, place, lambda at: at)) not in (None, place):
            place, count = end or 0, count + 1
        return rest(place) if count >= low else None

    def _holds(self, op: Any, arg: Any, place: int) -> bool:
        """Whether a node that takes no character agrees."""
        if op is sre.AT:
            return self._at(arg, place)
        assert op in (sre.ASSERT, sre.ASSERT_NOT), op
        return self._looks(*arg, place) == (op is sre.ASSERT)

    def _looks(self, direction: int, body: Any, place: int) -> bool:
        if direction > 0:
            return self.match(body, 0, place, lambda at: at) is not None
        begin = place - body.getwidth()[0]
        return begin >= 0 and self.match(body, 0, begin, lambda at: at if at == place else None) is not None

    def _at(self, where: Any, place: int) -> bool:
        text = self._text
        if where in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
            sides = [
                bool(side) and _CATEGORIES[sre.CATEGORY_WORD](side)
                for side in (text[place - 1 : place], text[place : place + 1])
            ]
            if place == 0:
                sides[0] = False
            return (sides[0] != sides[1]) == (where is sre.AT_BOUNDARY)
        if where in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            lines = where is sre.AT_BEGINNING and self._flags & re.MULTILINE
            return place == 0 or bool(lines and text[place - 1] == "\n")
        if where is sre.AT_END_STRING:
            return place == len(text)
        return text[place:] in ("", "\n") or bool(self._flags & re.MULTILINE and text[place] == "\n")

    def _step(self, count: int) -> None:
        self.steps += count
        if self.steps > ENOUGH:
            raise TooMuch


def sample(nodes: Nodes, letters: Sequence[str]) -> str:
    """A short text that these nodes match, but for what looks around."""
    return "".join(_sample(op, arg, letters) for op, arg in nodes)


def _sample(op: Any, arg: Any, letters: Sequence[str]) -> str:
    if op in _CHARACTER:
        run = _Run("", 0)
        return next((letter for letter in letters if run.fits(op, arg, letter)), chr(arg) if op is sre.LITERAL else "x")
    if op in _REPEATS:
        return sample(arg[2], letters) * max(1, min(arg[0], 8))
    if op is sre.SUBPATTERN:
        return sample(arg[3], letters)
    if op is sre.BRANCH:
        return sample(arg[1][0], letters)
    return sample(arg, letters) if op is sre.ATOMIC_GROUP else ""


def _sequences(nodes: Nodes) -> Iterator[Nodes]:
    """Every sequence of nodes in the tree."""
    yield nodes
    for op, arg in nodes:
        if op in _REPEATS:
            yield from _sequences(arg[2])
        elif op is sre.SUBPATTERN:
            yield from _sequences(arg[3])
        elif op is sre.BRANCH:
            for branch in arg[1]:
                yield from _sequences(branch)
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            yield from _sequences(arg[1])
        elif op is sre.ATOMIC_GROUP:
            yield from _sequences(arg)


def _tests(nodes: Nodes) -> Iterator[tuple[Any, Any]]:
    """Every node that stands for one character."""
    return ((op, arg) for part in _sequences(nodes) for op, arg in part if op in _CHARACTER)


def _words(nodes: Nodes) -> Iterator[str]:
    """Every run of plain letters."""
    for part in _sequences(nodes):
        text = "".join(chr(arg) if op is sre.LITERAL else "\n" for op, arg in part)
        yield from (word for word in text.split("\n") if len(word) > 1)
