"""Commands about providers: show what the governor allows, pause one, resume it."""

from typing import Annotated

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.client.store import StoreClient
from outwait.worker.store.governors import Breaker, GroupStatus

ProviderArgument = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's name.")]


def providers(context: typer.Context, as_json: Json = False) -> None:
    """Show each provider's load, its limits, and what holds requests back."""
    statuses = current(context).ask(lambda client: client.providers())
    if as_json:
        print_json({"providers": statuses})
        return
    columns = ("provider", "rate", "in flight", "jobs there", "breaker", "held back")
    print_table(columns, [_cells(status) for status in statuses], empty="")


def _cells(status: GroupStatus) -> tuple[str, ...]:
    rate = f"{status.rate}/{status.rate_limit} in {status.rate_window:g} s" if status.rate_limit else "-"
    in_flight, jobs = _of(status.in_flight, status.in_flight_limit), _of(status.jobs, status.jobs_limit)
    return status.provider, rate, in_flight, jobs, status.breaker, "; ".join(held_back(status))


def pause(
    context: typer.Context,
    provider: ProviderArgument,
    reason: Annotated[str, typer.Option(help="The reason, for other people.")] = "",
    as_json: Json = False,
) -> None:
    """Send no more requests to a provider, neither submits nor polls, until `outwait resume`.

    Steps that a worker has already claimed are finished.
    """
    current(context).ask(lambda client: client.pause(provider, reason))
    if as_json:
        print_json({"provider": provider, "paused": True})
    else:
        say(f"{provider} is paused. `outwait resume {provider}` ends the pause.")


def resume(context: typer.Context, provider: ProviderArgument, as_json: Json = False) -> None:
    """End a pause of a provider: a person's, and one that the provider itself asked for (`Retry-After`)."""

    async def resume_provider(client: StoreClient) -> tuple[bool, GroupStatus]:
        was_paused = await client.resume(provider)
        return was_paused, next(status for status in await client.providers() if status.provider == provider)

    was_paused, status = current(context).ask(resume_provider)
    if as_json:
        print_json({"provider": provider, "paused": False, "was_paused": was_paused})
        return
    say(f"{provider} is resumed." if was_paused else f"{provider} was not paused.")
    for reason in held_back(status):
        say(f"It is still {reason}.")


def held_back(status: GroupStatus) -> list[str]:
    """What keeps requests from a provider, apart from its limits."""
    reasons = []
    if status.suspended_since is not None:
        who = f" by {status.suspended_by}" if status.suspended_by else ""
        reasons.append(f"paused by a person since {when(status.suspended_since)}" + _why(status.suspended_why) + who)
    if status.paused_until is not None:
        reasons.append(f"paused until {when(status.paused_until)}" + _why(status.paused_why))
    outages = f"after {status.outages} outages" + _why(status.breaker_why)
    match status.breaker:
        case Breaker.OPEN:
            reasons.append(f"cut off until {when(status.breaker_until)} {outages}")
        case Breaker.PROBING:
            reasons.append(f"down to one request at a time {outages}")
        case Breaker.CLOSED:
            pass
    return reasons


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _of(number: int, limit: int | None) -> str:
    return f"{number}/{limit}" if limit else str(number)
