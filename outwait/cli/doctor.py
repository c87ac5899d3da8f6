"""`config` shows the settings; `doctor` checks the installation and says what to do."""

import asyncio
import os
from collections.abc import Collection, Mapping
from typing import Annotated

import typer

from outwait.cli.exits import rule_for
from outwait.cli.output import print_json, print_table, say
from outwait.cli.provider_check import check_providers
from outwait.cli.providers import held_back
from outwait.cli.session import Json, Session, current
from outwait.client.store import StoreClient
from outwait.config.exits import Exit
from outwait.config.explain import effective
from outwait.config.settings import Settings
from outwait.worker.model.errors import OperatorError, StoreUnavailable
from outwait.worker.model.jobs import JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.net import proxies
from outwait.worker.net.redaction import redact
from outwait.worker.store.governors import GroupStatus
from outwait.worker.store.health import Finding, is_unusable
from outwait.worker.store.orphans import Orphan
from outwait.worker.store.reads import LaneStatus
from outwait.worker.store.schemes import scheme_advice

PING_WITHIN = 1.5
"""Seconds within which workers must answer."""

REDIS = "redis"
"""The subject of the finding that Redis cannot be asked at all."""

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
        bool,
        typer.Option(
            help="Ask each provider for a job that does not exist: a wrong address and refused credentials show."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Check Redis, workers, lanes and what the providers answer, and say what to do.

    The exit code is 1 if there is an error. Warnings do not change it.
    """
    session = current(context)
    settings = session.settings()
    store = _store(session)
    findings = [
        *store,
        *([] if settings.broker_is_redis and _is_away(store) else _workers()),
        *_proxies(settings),
        *_receivers_of_everybody(settings),
        *(asyncio.run(check_providers(settings)) if providers else []),
    ]
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
        if is_unusable(health):
            return health
        held = (await client.jobs(state=JobState.UNCERTAIN, limit=1)).jobs
        dead, parked = await client.dead(1), await client.parked(1)
        misdirected = _misdirected(await client.misdirected(), session.settings().intake.queue)
        gone = bool(await client.disabled_receivers())
        orphans = _orphans(await client.orphans(1))
        people = _waiting_for_people(held=bool(held), dead=bool(dead), parked=bool(parked), gone=gone) + orphans
        unserved = await client.unserved()
        late = [status for status in await client.lanes() if status.lane not in {lane.lane for lane in unserved}]
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
        advice = scheme_advice(session.settings().redis_address) if isinstance(error, StoreUnavailable) else ""
        return [Finding("error", REDIS, str(error), advice or rule_for(error).advice)]


def _is_away(store: list[Finding]) -> bool:
    """Whether nothing could be asked of Redis. A broker that is the same would be asked for a minute, and say less."""
    return is_unusable(store) or [finding.subject for finding in store] == [REDIS]


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
            else f"No action is needed: the jobs wait and go on later; `outwait resume {name}` ends a pause sooner."
        )
        findings += [Finding("warning", f"requests to {name}", f"are {why}", advice) for why in held_back(status)]
    return findings


def _orphans(newest: list[Orphan]) -> list[Finding]:
    if not newest:
        return []
    advice = (
        "`outwait parked` lists them with their external ids: the provider has the results. See docs/operations.md."
    )
    return [Finding("warning", "answers without a job", "some paid answers belong to no job that is stored", advice)]


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


def _proxies(settings: Settings) -> list[Finding]:
    names = proxies.unused(os.environ, settings.outbound)
    return [Finding("warning", "proxy", f"{', '.join(names)}: set, but not used", proxies.ADVICE)] if names else []


def _receivers_of_everybody(settings: Settings) -> list[Finding]:
    every = [pattern for pattern in settings.webhooks.shared if not any(map(str.isalnum, pattern.partition("://")[2]))]
    if not every:
        return []
    message = f"OUTWAIT_WEBHOOKS__SHARED has {', '.join(every)}: whatever tenant sends a result, it verifies everywhere"
    advice = "List only receivers that serve all tenants, and give the others their own secrets (docs/webhooks.md)."
    return [Finding("warning", "secrets of webhooks", message, advice)]


def _workers() -> list[Finding]:
    from outwait.worker.app import EQUIPMENT, app  # Celery takes long to import

    try:
        alive = sorted(name for answer in app.control.ping(timeout=PING_WITHIN) for name in answer)
        asked = {"destination": alive, "reply": True, "timeout": PING_WITHIN, "limit": len(alive)}
        answers = app.control.broadcast(EQUIPMENT, **asked) if len(alive) > 1 else []
    except Exception as error:  # noqa: BLE001 - each broker has errors of its own
        return [
            Finding(
                "error", "broker", f"does not answer: {error}", "Check OUTWAIT_BROKER_URL, and what is said of Redis."
            )
        ]
    if not alive:
        return [Finding("error", "workers", "no worker is running", "Start one: `outwait worker`.")]
    found = {name: has for answer in answers for name, has in answer.items() if isinstance(has, list)}
    return [Finding("ok", "workers", f"{len(alive)} running: {', '.join(alive)}"), *less_equipped(found)]


def less_equipped(workers: Mapping[str, Collection[str]]) -> list[Finding]:
    """A warning for each worker that lacks what another one has. `workers` names what each has."""
    everything = frozenset[str]().union(*workers.values())
    advice = (
        "It leaves that work to the others. Give it the same settings, unless that is meant: OUTWAIT_PROVIDERS__…, "
        "OUTWAIT_HANDLERS__MODULES, OUTWAIT_WEBHOOKS__SECRETS."
    )
    return [
        Finding("warning", f"worker {name}", f"lacks {', '.join(sorted(everything.difference(has)))}", advice)
        for name, has in sorted(workers.items())
        if everything.difference(has)
    ]
