"""`config` shows the settings; `doctor` checks the installation and says what to do."""

import asyncio
from collections.abc import Mapping
from typing import Annotated
from uuid import uuid4

import typer

from outwait.cli.exits import Exit, advice_for
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
from outwait.worker.model.jobs import JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.net.redaction import redact
from outwait.worker.providers.contract import Provider, Waiting
from outwait.worker.providers.exchange import Exchange
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.governors import GroupStatus
from outwait.worker.store.health import Finding
from outwait.worker.store.reads import LaneStatus

ANSWER_WITHIN = 10.0
"""Seconds within which a provider must answer."""

PING_WITHIN = 1.5
"""Seconds within which workers must answer."""

LATE = 60.0
"""Seconds of delay above which a lane gets a warning."""


def config(context: typer.Context, as_json: Json = False) -> None:
    """Show every setting, its value (secrets are hidden) and where the value comes from."""
    rows = effective(current(context).settings())
    if as_json:
        print_json([{"name": row.name, "value": row.value, "source": row.source} for row in rows])
    else:
        print_table(("setting", "value", "source"), [(row.name, str(row.value), row.source) for row in rows], empty="")


def doctor(
    context: typer.Context,
    providers: Annotated[
        bool, typer.Option(help="Test each provider's credentials: ask for a job that does not exist.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Check Redis, workers, lanes and the providers' credentials, and say what to do.

    The exit code is 1 if there is an error. Warnings do not change it.
    """
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
    rows = [(finding.level, finding.subject, finding.message) for finding in findings]
    print_table(("", "what", "found"), rows, empty="")
    for finding in findings:
        if finding.advice:
            say(f"{finding.subject}: {finding.advice}")


def _store(session: Session) -> list[Finding]:
    async def check(client: StoreClient) -> list[Finding]:
        health = await client.check()
        held = (await client.jobs(state=JobState.UNCERTAIN, limit=1)).jobs
        dead, parked = await client.dead(1), await client.parked(1)
        misdirected = _misdirected(await client.misdirected(), session.settings().intake.queue)
        gone = bool(await client.disabled_receivers())
        people = _waiting_for_people(held=bool(held), dead=bool(dead), parked=bool(parked), gone=gone)
        unserved = await client.unserved()
        late = [status for status in await client.lanes() if status.lane not in {one.lane for one in unserved}]
        return [
            *health,
            *misdirected,
            *_unserved(unserved),
            *_lanes(late),
            *_held_back(await client.providers()),
            *people,
        ]

    try:
        return session.ask(check)
    except OperatorError as error:
        return [Finding("error", "redis", str(error), advice_for(error))]


def _lanes(lanes: list[LaneStatus]) -> list[Finding]:
    late = [lane for lane in lanes if lane.oldest_due_age > LATE]
    if not late:
        return [Finding("ok", "lanes", "nothing is late")]
    advice = "Start more workers, or check the provider's limits (docs/operations.md)."
    return [
        Finding(
            "warning", f"lane {redact(str(lane.lane))}", f"{lane.due_now} due, {lane.oldest_due_age:.0f} s late", advice
        )
        for lane in late
    ]


def _unserved(lanes: list[LaneStatus]) -> list[Finding]:
    return [
        Finding(
            "warning",
            f"lane {redact(str(status.lane))}",
            f"no running worker serves it; {status.due_now} due, which wait",
            _what_is_missing(status.lane),
        )
        for status in lanes
    ]


def _what_is_missing(lane: Lane) -> str:
    name = lane.name
    if lane.step in (Step.SUBMIT, Step.POLL):
        return (
            f"Give the workers OUTWAIT_PROVIDERS__{name.upper()}__… (docs/providers.md), or start workers that have it."
        )
    if name.startswith(("https:", "http:")):
        return "Give the workers OUTWAIT_WEBHOOKS__SECRETS, or start workers that have it."
    if lane.step is Step.DELIVER:
        return (
            f"Start workers whose OUTWAIT_HANDLERS__MODULES marks a function @handler({name!r}), or correct that name."
        )
    return "Start a worker: `outwait worker`."


def _misdirected(number: int, queue: str) -> list[Finding]:
    if not number:
        return []
    advice = f'Their producer names no queue. It must call send_task("tasks.submit", …, queue={queue!r}).'
    message = f"{number} messages for {queue} are in Celery's default queue, which no worker reads"
    return [Finding("warning", "queue celery", message, f"{advice} See docs/enqueueing.md.")]


def _held_back(providers: list[GroupStatus]) -> list[Finding]:
    findings = []
    for status in providers:
        name, by_person = status.provider, status.suspended_since is not None
        advice = (
            f"`outwait resume {name}` ends the pause."
            if by_person
            else "No action is needed: the jobs wait and go on later."
        )
        findings += [Finding("warning", f"requests to {name}", f"are {why}", advice) for why in held_back(status)]
    return findings


def _waiting_for_people(*, held: bool, dead: bool, parked: bool, gone: bool) -> list[Finding]:
    findings = []
    if held:
        advice = "`outwait held` lists them; `outwait resolve JOB` decides what happens to one."
        findings.append(Finding("warning", "held jobs", "some jobs wait for a person's decision", advice))
    if parked:
        advice = "`outwait parked` lists them with the reasons. Their producer must send correct messages."
        findings.append(Finding("warning", "producers' messages", "some messages could not become jobs", advice))
    if dead:
        advice = "`outwait dead` lists them; `outwait replay` repeats them."
        findings.append(Finding("warning", "deliveries", "some deliveries were given up", advice))
    if gone:
        advice = "`outwait endpoints` lists them with the reasons; its option --enable enables one again."
        findings.append(Finding("warning", "receivers of webhooks", "some receivers are disabled", advice))
    return findings


def _workers() -> list[Finding]:
    from outwait.worker.app import app  # Celery takes long to import

    try:
        alive = sorted(name for answer in app.control.ping(timeout=PING_WITHIN) for name in answer)
    except Exception as error:  # noqa: BLE001 - each broker has errors of its own
        return [
            Finding(
                "error", "broker", f"does not answer: {error}", "Check OUTWAIT_BROKER_URL, and what is said of Redis."
            )
        ]
    if not alive:
        return [Finding("error", "workers", "no worker is running", "Start one: `outwait worker`.")]
    return [Finding("ok", "workers", f"{len(alive)} running: {', '.join(alive)}")]


async def _providers(settings: Settings) -> list[Finding]:
    from outwait.worker.net.http import Http  # aiohttp takes long to import

    registry = build(settings.providers)
    incomplete = [_incomplete(registry, name) for name in settings.providers if name not in registry.providers]
    if not registry.providers and not incomplete:
        return [Finding("warning", "providers", "no provider is configured", "docs/providers.md lists the settings.")]
    http = Http(body_max=settings.store.result_max)
    try:
        probes = [
            _probe(provider, Exchange(http, _PrivateToken(), ANSWER_WITHIN)) for provider in registry.providers.values()
        ]
        return [*incomplete, *await asyncio.gather(*probes)]
    finally:
        await http.close()


def _incomplete(registry: Registry, name: str) -> Finding:
    try:
        registry.get(name)
    except ProviderNotConfigured as error:
        return Finding("error", f"provider {name}", str(error), "docs/providers.md lists the settings.")
    return Finding("ok", f"provider {name}", "is configured")


async def _probe(provider: Provider, exchange: Exchange) -> Finding:
    subject = f"provider {provider.name}"
    try:
        await provider.prepare(exchange)
        await provider.poll(_nonexistent(provider), exchange)
    except ExternalIdUnknown:
        return Finding("ok", subject, "answers and accepts the credentials")
    except Unauthorized as error:
        advice = f"Check the credentials in the settings OUTWAIT_PROVIDERS__{provider.name.upper()}__…"
        return Finding("error", subject, str(error), advice)
    except NotSent as error:
        advice = f"Check the network and OUTWAIT_PROVIDERS__{provider.name.upper()}__BASE_URL."
        return Finding("error", subject, str(error), advice)
    except RateLimited as error:
        return Finding("warning", subject, str(error), "No action is needed: the jobs wait and go on later.")
    except ProviderError as error:
        return Finding(
            "warning", subject, str(error), "The provider answers, but not as it documents. Try again later."
        )
    return Finding("ok", subject, "answers and accepts the credentials")


def _nonexistent(provider: Provider) -> Waiting:
    async def no_params() -> Mapping[str, object]:
        return {}

    operation = next(iter(provider.operations))
    return Waiting(job_id="doctor", operation=operation, external_id=str(uuid4()), memo="", age=0, params=no_params)


class _PrivateToken:
    """A token store for this check only, so that the credentials are used and no token of the workers."""

    def __init__(self) -> None:
        self._token: tuple[str, float] | None = None

    async def token(self, name: str) -> tuple[str, float] | None:  # noqa: ARG002 - it serves one provider only
        return self._token

    async def put_token(self, name: str, token: str, *, ttl_s: float) -> None:  # noqa: ARG002
        self._token = token, ttl_s

    async def drop_token(self, name: str, token: str) -> None:  # noqa: ARG002
        self._token = None

    async def lock_token(self, name: str, *, ttl_s: float) -> bool:  # noqa: ARG002
        return True

    async def unlock_token(self, name: str) -> None:
        pass
