"""Texts of others on a terminal: what is not shown but does something there is replaced or escaped.

These are the control characters (C0, DEL, C1), and format characters, such as those that turn the direction of writing.
"""

import json


def printable(text: str, *, keep: str = "") -> str:
    """The text with such characters replaced, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}" for letter in text)


def escaped(document: str) -> str:
    """The same JSON document, with such characters as JSON's own escapes; ends of lines stay."""
    if document.replace("\n", "").isprintable():
        return document
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in document
    )
