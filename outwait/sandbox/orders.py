"""The orders in force: by provider over the control endpoint, by job from a marker in the submit's body."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from outwait.sandbox.behaviour import BadOrder, Behaviour, Call, Fault, Plan, ordered

_IN_TEXT = re.compile(r"sandbox:\s*(?=\{)")
_IN_QUERY = re.compile(r"[?&]sandbox=([^&#\s]*)")
_JSON = json.JSONDecoder()


class Orders:
    """Which behaviour and faults are in force.

    Args:
        base: how jobs go by default.
        rng: decides faults with a probability.
    """

    def __init__(self, base: Behaviour, rng: random.Random) -> None:
        self._base = base
        self._rng = rng
        self._everywhere = base, Plan(base.faults)
        self._providers: dict[str, tuple[Behaviour, Plan]] = {}
        self._marked: dict[str, Plan] = {}

    def give(self, provider: str | None, changes: dict[str, Any]) -> Behaviour:
        """Order a behaviour of one provider, or of all; it replaces what was ordered there before.

        Raises:
            BadOrder: the changes are not those of a Behaviour.
        """
        behaviour = ordered(self._base, changes)
        order = behaviour, Plan(behaviour.faults)
        if provider is None:
            self._everywhere = order
            self._providers.clear()
        else:
            self._providers[provider] = order
        return behaviour

    def behaviour(self, provider: str) -> Behaviour:
        """The behaviour of a provider's unmarked jobs."""
        return self._providers.get(provider, self._everywhere)[0]

    def fault(self, provider: str, call: Call, plan: Plan | None) -> Fault | None:
        """The fault that befalls this request: its job's own first, then the provider's."""
        fault = plan.take(call, self._rng) if plan else None
        return fault or self._providers.get(provider, self._everywhere)[1].take(call, self._rng)

    def marked(self, provider: str, digest: str, marker: dict[str, Any]) -> tuple[Behaviour, Plan]:
        """The behaviour and the faults of a marked body. A repeated body meets the faults that are left of its plan.

        Raises:
            BadOrder: the marker is not a Behaviour.
        """
        behaviour = ordered(self.behaviour(provider), marker)
        plan = self._marked.get(digest) or Plan(behaviour.faults)
        if behaviour.faults:
            self._marked[digest] = plan
        return behaviour, plan


def find_marker(data: object) -> dict[str, Any] | None:
    """The first marker in a request's data: `sandbox:{…}` in a text, `?sandbox=…` in a URL, or a key `sandbox`.

    Raises:
        BadOrder: a marker that is not a JSON object.
    """
    return next((read_marker(found) for found in _markers(data)), None)


def read_marker(found: object) -> dict[str, Any]:
    """A marker from its JSON, whatever follows it, or from decoded JSON. Raises BadOrder."""
    try:
        marker = _JSON.raw_decode(found)[0] if isinstance(found, str) else found
    except ValueError as error:
        raise BadOrder(f"sandbox marker: given {found!r:.200}, JSON is expected ({error})") from error
    if not isinstance(marker, dict):
        raise BadOrder(f"sandbox marker: given {marker!r:.200}, a JSON object is expected")
    return marker


def _markers(data: object) -> Iterator[Any]:
    if isinstance(data, str):
        if match := _IN_TEXT.search(data):
            yield data[match.end() :]
        elif match := _IN_QUERY.search(data):
            yield unquote_plus(match[1])
    elif isinstance(data, dict):
        if isinstance(data.get("sandbox"), dict):
            yield data["sandbox"]
        for value in data.values():
            yield from _markers(value)
    elif isinstance(data, list):
        for value in data:
            yield from _markers(value)
