"""The providers: what the governor lets through to each, and a person's pause."""

from typing import Annotated

import typer

from outwait.cli.output import print_json, print_table, say, when
from outwait.cli.session import Json, current
from outwait.client.store import StoreClient
from outwait.worker.store.governors import Breaker, GroupStatus

ProviderArgument = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's name.")]


def providers(context: typer.Context, as_json: Json = False) -> None:
    """Show what goes to each provider now, its limits, and what holds requests back."""
    found = current(context).ask(lambda client: client.providers())
    if as_json:
        print_json({"providers": found})
        return
    rows = [
        (
            one.group,
            f"{one.rate}/{one.rate_limit} in {one.rate_window:g} s" if one.rate_limit else "-",
            _of(one.in_flight, one.in_flight_limit),
            _of(one.jobs, one.jobs_limit),
            one.breaker,
            "; ".join(held_back(one)),
        )
        for one in found
    ]
    print_table(("provider", "rate", "in flight", "jobs there", "breaker", "held back"), rows, empty="")


def pause(
    context: typer.Context,
    provider: ProviderArgument,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks.")] = "",
    as_json: Json = False,
) -> None:
    """Send nothing more to a provider until it is resumed: no submits and no polls. What was claimed already ends."""
    current(context).ask(lambda client: client.pause(provider, reason))
    if as_json:
        print_json({"provider": provider, "paused": True})
    else:
        say(f"{provider} is paused. `outwait resume {provider}` lets it go on.")


def resume(context: typer.Context, provider: ProviderArgument, as_json: Json = False) -> None:
    """Let a provider that was paused by a person go on."""

    async def go_on(client: StoreClient) -> tuple[bool, GroupStatus]:
        was_paused = await client.resume(provider)
        return was_paused, next(one for one in await client.providers() if one.group == provider)

    was_paused, status = current(context).ask(go_on)
    if as_json:
        print_json({"provider": provider, "paused": False, "was_paused": was_paused})
        return
    say(f"{provider} goes on." if was_paused else f"{provider} was not paused by a person.")
    for one in held_back(status):
        say(f"It is still {one}.")


def held_back(one: GroupStatus) -> list[str]:
    """What keeps requests from a provider, other than its limits."""
    found = []
    if one.suspended_since is not None:
        found.append(f"paused by a person since {when(one.suspended_since)}" + _why(one.suspended_why))
    if one.paused_until is not None:
        found.append(f"paused until {when(one.paused_until)}" + _why(one.paused_why))
    match one.breaker:
        case Breaker.OPEN:
            found.append(f"cut off until {when(one.breaker_until)} after {one.outages} outages" + _why(one.breaker_why))
        case Breaker.PROBING:
            found.append(f"down to one request at a time after {one.outages} outages" + _why(one.breaker_why))
        case Breaker.CLOSED:
            pass
    return found


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _of(number: int, limit: int | None) -> str:
    return f"{number}/{limit}" if limit else str(number)
