"""The orders in force: for a provider from the control route, for a job from a marker in the submit's body."""

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
    """The behaviour and the faults that are in force.

    Args:
        base: how jobs behave by default.
        rng: decides faults with a probability.
    """

    def __init__(self, base: Behaviour, rng: random.Random) -> None:
        self._base = base
        self._rng = rng
        self._everywhere = base, Plan(base.faults)
        self._providers: dict[str, tuple[Behaviour, Plan]] = {}
        self._marked: dict[str, Plan] = {}

    def give(self, provider: str | None, changes: dict[str, Any]) -> Behaviour:
        """Order the behaviour of one provider or of all. It replaces the previous order.

        Raises:
            BadOrder: the changes do not make a valid Behaviour.
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
        """The fault for this request: from its job's order first, then from the provider's."""
        fault = plan.take(call, self._rng) if plan else None
        return fault or self._providers.get(provider, self._everywhere)[1].take(call, self._rng)

    def marked(self, provider: str, digest: str, marker: dict[str, Any]) -> tuple[Behaviour, Plan]:
        """The behaviour and the faults of a body with a marker. A repeated body gets the remaining faults of its plan.

        Raises:
            BadOrder: the marker is not a valid Behaviour.
        """
        behaviour = ordered(self.behaviour(provider), marker)
        plan = self._marked.get(digest) or Plan(behaviour.faults)
        if behaviour.faults:
            self._marked[digest] = plan
        return behaviour, plan


def find_marker(data: object) -> dict[str, Any] | None:
    """The first marker in a request's data: `sandbox:{…}` in a text, `?sandbox=…` in a URL, or a key `sandbox`.

    Raises:
        BadOrder: a marker is not a JSON object.
    """
    return next((read_marker(raw) for raw in _markers(data)), None)


def read_marker(raw: object) -> dict[str, Any]:
    """Read a marker from text that begins with its JSON, or from decoded JSON. Raises BadOrder."""
    try:
        marker = _JSON.raw_decode(raw)[0] if isinstance(raw, str) else raw
    except ValueError as error:
        raise BadOrder(f"sandbox marker: given {raw!r:.200}, must be JSON ({error})") from error
    if not isinstance(marker, dict):
        raise BadOrder(f"sandbox marker: given {marker!r:.200}, must be a JSON object")
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
