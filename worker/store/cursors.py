"""The place at which a page of a listing ends, as the text that the next page is asked for with."""

import re
from typing import NamedTuple

from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.jobs import JOB_ID_PATTERN

_PLACE = "^[0-9]{1,15}/" + JOB_ID_PATTERN.removeprefix("^").removesuffix("$")

JOB_CURSOR = _PLACE + "$"
"""What the cursor of a page of jobs looks like."""

DELIVERY_CURSOR = _PLACE + "#[0-9]{1,9}$"
"""What the cursor of a page of deliveries looks like."""


class Place(NamedTuple):
    """Where something stands in a listing that is sorted by a time."""

    at_ms: int
    id: str

    @property
    def cursor(self) -> str:
        """The place as text."""
        return f"{self.at_ms}/{self.id}"


def place_of(cursor: str, pattern: str) -> Place:
    """The place that a cursor means. Raises InvalidRequest: it does not look as the pattern says."""
    if not re.fullmatch(pattern, cursor):
        raise InvalidRequest(f"{cursor[:200]!r} is no cursor: use the one that the last page gave")
    at_ms, _, name = cursor.partition("/")
    return Place(int(at_ms), name)
