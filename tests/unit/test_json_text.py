"""JSON that is not quite JSON: what of it is kept, and what the warning says."""

import json

import pytest

from outwait.worker.model.json_text import NO_CHARACTERS, NO_NUMBERS, encoded, parsed


@pytest.mark.parametrize(
    ("content", "data", "warning"),
    [
        (b'{"a": [1, 2.5, "x", null]}', {"a": [1, 2.5, "x", None]}, ""),
        (b'{"score": NaN, "b": 0.25}', {"score": "NaN", "b": 0.25}, NO_NUMBERS),
        (b"[Infinity, -Infinity, 1e999]", ["Infinity", "-Infinity", "1e999"], NO_NUMBERS),
        (b'{"word": "half \\ud83d"}', {"word": "half \ufffd"}, NO_CHARACTERS),
        (b'{"\\udc00": 1}', {"\ufffd": 1}, NO_CHARACTERS),
        (b'["whole \\ud83d\\ude00", NaN]', ["whole \U0001f600", "NaN"], NO_NUMBERS),
        (b'["latin \xe9", NaN]', ["latin \ufffd", "NaN"], f"{NO_NUMBERS}; {NO_CHARACTERS}"),
        ('["\ufffd", NaN]'.encode(), ["\ufffd", "NaN"], NO_NUMBERS),
        (b'\xef\xbb\xbf{"a": 9007199254740993}', {"a": 9007199254740993}, ""),
        (b"[NaN, 18446744073709551615, -9223372036854775808]", ["NaN", 2**64 - 1, -(2**63)], NO_NUMBERS),
    ],
)
def test_what_is_kept(content: bytes, data: object, warning: str) -> None:
    assert parsed(content) == (data, warning)
    assert encoded(parsed(content).data)[1] == ""


def test_a_number_without_end_is_a_string() -> None:
    digits = "9" * 400
    assert parsed(f"[NaN, {digits}]".encode()) == (["NaN", digits], NO_NUMBERS)


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b"[" * 100_000, b"{'a': NaN}", b"\x00", b"nan"])
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(content)


def test_an_integer_of_any_length_is_kept() -> None:
    digits = "9" * 400
    assert encoded(parsed(digits.encode()).data) == (digits.encode(), "")


def test_half_a_character_in_a_result_is_written() -> None:
    text, warning = encoded({"a": ["x\ud800", 1.5]})
    assert (json.loads(text), warning) == ({"a": ["x\ufffd", 1.5]}, NO_CHARACTERS)
