"""Reads and writes JSON that is not quite JSON, so that a paid result is not lost for a character in it.

Strict JSON is read as fast as before. Where that fails, numbers that JSON does not have (NaN, Infinity) become strings,
as in the JSON mapping of Protocol Buffers, and what is no Unicode character becomes U+FFFD. A warning says so.
"""

import json
import math
from typing import Any, NamedTuple

import msgspec

NO_NUMBERS = "numbers that JSON does not have (NaN, Infinity) are strings in the result"
NO_CHARACTERS = "characters that Unicode does not have are U+FFFD in the result"


DEEPEST = 200
"""Levels of a document at most. What reads data later goes down by calls, of which Python has a thousand."""


class TooDeep(ValueError):
    """The document is nested more than `DEEPEST` levels deep."""

    def __init__(self) -> None:
        super().__init__(f"it is nested more than {DEEPEST} levels deep")


class Parsed(NamedTuple):
    """Plain data, and what was changed in it, or nothing."""

    data: Any
    warning: str = ""


def parsed(content: bytes) -> Parsed:
    """Read JSON. Raises ValueError if it is none, even with allowances, and TooDeep."""
    try:
        answer = _read(content)
    except RecursionError as error:
        raise TooDeep from error
    if content.count(b"[") + content.count(b"{") > DEEPEST and _is_deep(answer.data):
        raise TooDeep
    return answer


def _read(content: bytes) -> Parsed:
    try:
        return Parsed(msgspec.json.decode(content))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _repaired(content)


def _is_deep(data: Any) -> bool:
    """Whether it has more levels than that. Goes down level by level, by no calls of its own."""
    level = [data]
    for _ in range(DEEPEST):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def encoded(value: Any) -> tuple[bytes, str]:
    """Write JSON: the text, and what was changed for it, or nothing."""
    try:
        return msgspec.json.encode(value), ""
    except (UnicodeEncodeError, OverflowError):  # half of a surrogate pair, or an integer of more than 64 bits
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    whole = _without_halves(text)
    return whole.encode(), NO_CHARACTERS if whole != text else ""


def _repaired(content: bytes) -> Parsed:
    text, broken = _text(content)
    numbers: list[str] = []

    def number(literal: str) -> float | str:
        value = float(literal)
        if math.isfinite(value):
            return value
        numbers.append(literal)
        return literal

    def integer(literal: str) -> int | float | str:
        fits = len(literal) <= 20 and -(2**63) <= int(literal) < 2**64
        return int(literal) if fits else number(literal)

    data = json.loads(text, parse_constant=number, parse_float=number, parse_int=integer)
    written = json.dumps(data, ensure_ascii=False)
    whole = _without_halves(written)
    notes = (NO_NUMBERS if numbers else "", NO_CHARACTERS if broken or whole != written else "")
    return Parsed(msgspec.json.decode(whole), "; ".join(note for note in notes if note))


def _text(content: bytes) -> tuple[str, bool]:
    """The text, without a byte order mark, and whether it has bytes that are no characters.

    The bytes themselves say which UTF it is (RFC 4627, section 3).
    """
    encoding = json.detect_encoding(content)
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    try:
        return content.decode(encoding), False
    except UnicodeDecodeError:
        return content.decode(encoding, errors="replace"), True


def _without_halves(text: str) -> str:
    """Text in which each half of a surrogate pair is U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")
