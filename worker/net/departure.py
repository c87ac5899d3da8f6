"""Whether a request may leave now: asked when its connection stands, directly before the first byte is written."""

from contextvars import ContextVar
from typing import Protocol


class Departure(Protocol):
    """Decides for the requests of one running step."""

    async def permit(self) -> None:
        """Write down what must be known before a request leaves. Raises Withheld."""
        ...

    def check(self) -> None:
        """Whether it may still leave: called again with the first byte of a body. Raises Withheld."""
        ...


DEPARTURE: ContextVar[Departure | None] = ContextVar("departure", default=None)
"""Of the step that runs in this context; None where no step runs."""
