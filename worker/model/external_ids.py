"""The form of an external id: it gets into URLs, timelines, logs and terminals, and Redis keeps it with the job."""

LONGEST = 500
"""Characters of an external id at most."""

_NO_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
"""Texts that stand for what is no number in a document (`json_text`)."""


def is_external_id(text: str) -> bool:
    """Whether a text can be an external id: printable characters, without control and format characters."""
    return 0 < len(text) <= LONGEST and text.isprintable() and bool(text.strip()) and text not in _NO_NUMBERS
