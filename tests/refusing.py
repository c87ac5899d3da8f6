"""Handlers that workers of tests load: they refuse every delivery, so each one becomes dead."""

from outwait import DeliveryRefused, handler

NAMES = [f"refuses-{number}" for number in range(8)]


def refuse() -> None:
    """Refuse for good."""
    raise DeliveryRefused("never will")


for name in NAMES:
    handler(name)(refuse)
