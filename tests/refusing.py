"""Handlers that workers of tests load: they refuse every delivery, so each one becomes dead."""

from collections.abc import Callable

from outwait import DeliveryRefused, handler

NAMES = [f"refuses-{number}" for number in range(6)]


def refusing(name: str) -> Callable[[], None]:
    @handler(name)
    def refuse() -> None:
        raise DeliveryRefused("never will")

    return refuse


first, second, third, fourth, fifth, sixth = map(refusing, NAMES)
