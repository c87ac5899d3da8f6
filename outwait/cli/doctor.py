"""Is everything well? `config` shows the settings, `doctor` checks what they lead to and says what to do."""

import asyncio
from collections.abc import Mapping
from typing import Annotated
from uuid import uuid4

import typer

from outwait.cli.exits import Exit
from outwait.cli.output import print_json, print_table, say
from outwait.cli.providers import held_back
from outwait.cli.session import Json, Session, current
from outwait.client.store import StoreClient
from outwait.config.explain import effective
from outwait.config.settings import Settings
from outwait.worker.model.errors import (
    ExternalIdUnknown,
    NotSent,
    OperatorError,
    ProviderError,
    ProviderNotConfigured,
    RateLimited,
    Unauthorized,
)
from outwait.worker.model.jobs import JobState
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Provider, Waiting
from outwait.worker.providers.exchange import Exchange
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.governors import GroupStatus
from outwait.worker.store.health import Finding
from outwait.worker.store.reads import LaneStatus

ANSWER_WITHIN = 10.0
"""Seconds a provider gets to answer the doctor."""

PING_WITHIN = 1.5
"""Seconds workers get to answer."""

LATE = 60.0
"""Seconds behind at which a lane is worth a warning."""


def config(context: typer.Context, as_json: Json = False) -> None:
    """Print every setting, its value (secrets hidden) and where it comes from."""
    found = effective(current(context).settings())
    if as_json:
        print_json([{"name": one.name, "value": one.value, "source": one.source} for one in found])
    else:
        print_table(("setting", "value", "source"), [(one.name, str(one.value), one.source) for one in found], empty="")


def doctor(
    context: typer.Context,
    providers: Annotated[bool, typer.Option(help="Ask each provider for a job that does not exist.")] = True,
    as_json: Json = False,
) -> None:
    """Check Redis, workers, lanes and the providers' credentials, and say what to do. Code 1 if something is wrong."""
    session = current(context)
    settings = session.settings()
    findings = [*_store(session), *_workers(), *(asyncio.run(_providers(settings)) if providers else [])]
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        _print(findings)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _print(findings: list[Finding]) -> None:
    print_table(("", "what", "found"), [(one.level, one.subject, one.message) for one in findings], empty="")
    for one in findings:
        if one.advice:
            say(f"{one.subject}: {one.advice}")


def _store(session: Session) -> list[Finding]:
    async def look(client: StoreClient) -> list[Finding]:
        found = await client.check()
        held = (await client.jobs(state=JobState.UNCERTAIN, limit=1)).jobs
        dead, parked = await client.dead(1), await client.parked(1)
        strays = _misdirected(await client.misdirected(), session.settings().intake.queue)
        gone = bool(await client.disabled_endpoints())
        people = _waiting_for_people(held=bool(held), dead=bool(dead), parked=bool(parked), gone=gone)
        return [*found, *strays, *_lanes(await client.lanes()), *_held_back(await client.providers()), *people]

    try:
        return session.ask(look)
    except OperatorError as error:
        return [Finding("error", "redis", str(error), "Set OUTWAIT_REDIS_URL to a running Redis, or use `outwait up`.")]


def _lanes(lanes: list[LaneStatus]) -> list[Finding]:
    late = [lane for lane in lanes if lane.oldest_due_age > LATE]
    if not late:
        return [Finding("ok", "lanes", "nothing is late")]
    advice = "Start more workers, or look at the provider's limits (docs/operations.md)."
    return [
        Finding(
            "warning", f"lane {redact(str(lane.lane))}", f"{lane.due_now} due, {lane.oldest_due_age:.0f} s late", advice
        )
        for lane in late
    ]


def _misdirected(number: int, queue: str) -> list[Finding]:
    if not number:
        return []
    advice = f'Their producer names no queue: send_task("tasks.submit", …, queue={queue!r}) (docs/enqueueing.md).'
    return [Finding("warning", "queue celery", f"{number} jobs lie where nobody reads them", advice)]


def _held_back(groups: list[GroupStatus]) -> list[Finding]:
    found = []
    for one in groups:
        by_person = one.suspended_since is not None
        advice = f"`outwait resume {one.group}` lets it go on." if by_person else "Jobs wait for it by themselves."
        found += [Finding("warning", f"requests to {one.group}", f"are {what}", advice) for what in held_back(one)]
    return found


def _waiting_for_people(*, held: bool, dead: bool, parked: bool, gone: bool) -> list[Finding]:
    found = []
    if held:
        advice = "`outwait held` lists them; `outwait resolve JOB` decides."
        found.append(Finding("warning", "held jobs", "some wait for a person", advice))
    if parked:
        advice = "`outwait parked` shows them and why; their producer must send them again."
        found.append(Finding("warning", "producers' messages", "some could be no job", advice))
    if dead:
        advice = "`outwait dead` lists them; `outwait replay` repeats them."
        found.append(Finding("warning", "deliveries", "some were given up", advice))
    if gone:
        advice = "`outwait endpoints` lists them and why; with --enable it lets one be sent to again."
        found.append(Finding("warning", "receivers of webhooks", "some are disabled", advice))
    return found


def _workers() -> list[Finding]:
    from outwait.worker.app import app  # Celery takes long to import

    try:
        alive = sorted(name for answer in app.control.ping(timeout=PING_WITHIN) for name in answer)
    except Exception as error:  # noqa: BLE001 - each broker has errors of its own
        return [Finding("error", "broker", f"does not answer: {error}", "Check OUTWAIT_BROKER_URL.")]
    if not alive:
        return [Finding("error", "workers", "none is alive", "Start one: `outwait worker`.")]
    return [Finding("ok", "workers", f"{len(alive)} alive: {', '.join(alive)}")]


async def _providers(settings: Settings) -> list[Finding]:
    from outwait.worker.net.http import Http  # aiohttp takes long to import

    registry = build(settings.providers)
    incomplete = [_incomplete(registry, name) for name in settings.providers if name not in registry.providers]
    if not registry.providers and not incomplete:
        return [Finding("warning", "providers", "none is configured", "docs/providers.md lists their settings.")]
    http = Http(body_max=settings.store.result_max)
    try:
        probes = [_probe(one, Exchange(http, _OwnToken(), ANSWER_WITHIN)) for one in registry.providers.values()]
        return [*incomplete, *await asyncio.gather(*probes)]
    finally:
        await http.close()


def _incomplete(registry: Registry, name: str) -> Finding:
    try:
        registry.get(name)
    except ProviderNotConfigured as error:
        return Finding("error", f"provider {name}", str(error), "docs/providers.md lists its settings.")
    return Finding("ok", f"provider {name}", "is configured")


async def _probe(provider: Provider, exchange: Exchange) -> Finding:
    subject = f"provider {provider.name}"
    try:
        await provider.prepare(exchange)
        await provider.poll(_nonexistent(provider), exchange)
    except ExternalIdUnknown:
        return Finding("ok", subject, "answers, and accepts the credentials")
    except Unauthorized as error:
        advice = f"Check the credentials in OUTWAIT_PROVIDERS__{provider.name.upper()}__…"
        return Finding("error", subject, str(error), advice)
    except NotSent as error:
        advice = f"Check the network and OUTWAIT_PROVIDERS__{provider.name.upper()}__BASE_URL."
        return Finding("error", subject, str(error), advice)
    except RateLimited as error:
        return Finding("warning", subject, str(error), "Jobs wait for it by themselves.")
    except ProviderError as error:
        return Finding("warning", subject, str(error), "It answers, but not as documented; try again later.")
    return Finding("ok", subject, "answers, and accepts the credentials")


def _nonexistent(provider: Provider) -> Waiting:
    async def none() -> Mapping[str, object]:
        return {}

    operation = next(iter(provider.operations))
    return Waiting(job_id="doctor", operation=operation, external_id=str(uuid4()), memo="", age=0, params=none)


class _OwnToken:
    """A token that is shared with nobody, so that the credentials themselves are tried."""

    def __init__(self) -> None:
        self._token: tuple[str, float] | None = None

    async def token(self, name: str) -> tuple[str, float] | None:  # noqa: ARG002 - one provider's alone
        return self._token

    async def put_token(self, name: str, token: str, *, ttl: float) -> None:  # noqa: ARG002
        self._token = token, ttl

    async def drop_token(self, name: str, token: str) -> None:  # noqa: ARG002
        self._token = None

    async def lock_token(self, name: str, *, ttl: float) -> bool:  # noqa: ARG002
        return True

    async def unlock_token(self, name: str) -> None:
        pass
