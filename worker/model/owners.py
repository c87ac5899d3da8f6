"""Which tenants' jobs may be delivered to a target: all, unless the operator says otherwise. Pure."""

from collections.abc import Mapping, Sequence

from outwait.config.patterns import EVERYBODY
from outwait.worker.model.targets import FunctionTarget, StreamTarget, Target, WebhookTarget, allowed, canonical


class Owners:
    """To whom targets belong.

    Args:
        tenants: patterns of targets, each with its tenants (OUTWAIT_HANDLERS__TENANTS). The first that matches counts.
    """

    def __init__(self, tenants: Mapping[str, Sequence[str]]) -> None:
        self._tenants = tenants

    def refusal(self, target: Target, tenant: str | None) -> str:
        """Why no job of a tenant may be delivered to a target, or "". It does not name the other tenants."""
        owners = self._of(_place(target))
        if owners is None or EVERYBODY in owners or (tenant and tenant in owners):
            return ""
        jobs = f"jobs of tenant {tenant}" if tenant else "jobs without a tenant"
        change = "add the tenant" if tenant else "change this"
        return f"{_shown(target)} is not for {jobs}; the operator can {change} in OUTWAIT_HANDLERS__TENANTS"

    def _of(self, place: str) -> Sequence[str] | None:
        return next((tenants for pattern, tenants in self._tenants.items() if allowed(place, [pattern])), None)


def _place(target: Target) -> str:
    """Where a result goes, without what is not part of the place: a query, a length."""
    match target:
        case WebhookTarget():
            return target.receiver
        case StreamTarget(key):
            return f"stream://{key}"
        case _:
            return canonical(target)


def _shown(target: Target) -> str:
    match target:
        case FunctionTarget(name):
            return f"handler {name}"
        case WebhookTarget():
            return f"the receiver at {target.host}"
        case _:
            return f"target {_place(target)}"
