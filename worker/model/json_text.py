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


class Parsed(NamedTuple):
    """Plain data, and what was changed in it, or nothing."""

    data: Any
    warning: str = ""


def parsed(content: bytes) -> Parsed:
    """Read JSON. Raises ValueError if it is none, even with allowances."""
    try:
        return Parsed(msgspec.json.decode(content))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _repaired(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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

    try:
        data = json.loads(text, parse_constant=number, parse_float=number, parse_int=integer)
        written = json.dumps(data, ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    whole = _without_halves(written)
    notes = (NO_NUMBERS if numbers else "", NO_CHARACTERS if broken or whole != written else "")
    return Parsed(msgspec.json.decode(whole), "; ".join(note for note in notes if note))


def _text(content: bytes) -> tuple[str, bool]:
    """The text, without a byte order mark, and whether it has bytes that are no UTF-8."""
    try:
        return content.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return content.decode("utf-8-sig", errors="replace"), True


def _without_halves(text: str) -> str:
    """Text in which each half of a surrogate pair is U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")
