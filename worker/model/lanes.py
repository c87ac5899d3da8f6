"""Lanes: the due work of one step for one provider or handler. Pure, no I/O."""

from typing import Self

import msgspec

from outwait.worker.model.jobs import Step

_HELD = "held"


class Lane(msgspec.Struct, frozen=True):
    """One lane. Its text is what stands in Redis and in Celery's messages.

    Args:
        step: what is done to its jobs; None for jobs held for a person, which no step takes.
        name: the provider, or the target of a deliver lane; empty for the callback lane, of which there is one.
    """

    step: Step | None
    name: str = ""

    @classmethod
    def of(cls, step: Step, name: str) -> Self:
        """The lane of a provider's or a handler's step; the callback lane is the same for all."""
        return cls(step, "" if step is Step.CALLBACK else name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a lane's text. Raises ValueError if it begins with no step."""
        step, _, name = text.partition(":")
        return cls(None if step == _HELD else Step(step), name)

    def __str__(self) -> str:
        return f"{self.step or _HELD}:{self.name}" if self.name else str(self.step)


CALLBACK = Lane(Step.CALLBACK)
"""Where every ended job waits for its fan-out."""

BACKLOG = Lane(Step.DELIVER)
"""Stands for the deliveries that wait until they are admitted to their lanes; nothing is claimed from it."""
