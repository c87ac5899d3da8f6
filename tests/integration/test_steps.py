"""A step is built from its parts, without a runtime and without Celery: real store, real HTTP to the sandbox."""

from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import pytest
from aiohttp.test_utils import TestServer
from celery import Celery

from outwait.config.groups import PollSettings, StepSettings, StoreSettings
from outwait.config.settings import Settings
from outwait.sandbox import Behaviour, Fault, SandboxOptions, create_app
from outwait.sandbox.behaviour import Call, FaultKind
from outwait.tasks.poll import UNKNOWN_POLLS, Poll
from outwait.tasks.submit import Submit
from outwait.worker.celery.flower_events import FlowerEvents
from outwait.worker.engine.lane_policies import Policies
from outwait.worker.engine.provider_step import ProviderGateway, ProviderStep
from outwait.worker.engine.provider_webhooks import WebhookProcessor, WebhookUrls
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.jobs import Claim, JobState, Step
from outwait.worker.model.lanes import Lane
from outwait.worker.model.outcomes import Outage, Outcome, Retry
from outwait.worker.net.http import Http
from outwait.worker.net.outbound import Guard
from outwait.worker.providers.exchange import Exchange
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store import codec
from outwait.worker.store.lanes import Held, NewJob
from outwait.worker.store.store import Store
from tests.contract.provider_contract import raw_settings
from tests.stack import query, until

JOB = NewJob(
    id="j1",
    provider="unless",
    operation="query",
    digest="d",
    spec=codec.blob(codec.encode({"params": query("why?").params}), 1000),
)


class Parts:
    """What a worker process would share, made by hand."""

    def __init__(self, settings: Settings, server: TestServer) -> None:
        self.store = Store.open(settings)
        raw = raw_settings(str(server.make_url("")))
        self.registry = build(raw | {"unless": raw["unless"] | {"poll_every": 0.01}})
        self.policies = Policies(settings, self.registry)
        self.http = Http(body_max=1 << 20, guard=Guard(["127.0.0.1"]))
        self.recorder = Recorder(self.store.lanes, lambda _: None)
        self.events = FlowerEvents(Celery(), "test", enabled=False)

    def gateway(self, step: Step) -> ProviderGateway:
        return ProviderGateway(
            name="unless",
            registry=self.registry,
            policy=self.policies.of(Lane.of(step, "unless")),
            limits=self.registry.limits("unless"),
            new_exchange=partial(Exchange, self.http, self.store.tokens, 5.0),
            durations_s=lambda _: (),
        )

    def submit(self) -> Submit:
        return Submit(
            gateway=self.gateway(Step.SUBMIT),
            settings=StepSettings(),
            reads=self.store.reads,
            webhook_urls=WebhookUrls(self.store.settings, self.store.webhooks),
            events=self.events,
        )

    def poll(self, **settings: float) -> Poll:
        return Poll(
            gateway=self.gateway(Step.POLL),
            settings=PollSettings(backoff=0.01, **{"backoff_max": 0.02, **settings}),
            store=StoreSettings(),
            reads=self.store.reads,
            webhooks=WebhookProcessor(self.store, self.registry),
            events=self.events,
        )

    async def run(self, step: ProviderStep) -> list[Outcome]:
        """Claim the one job as soon as it is due, do the step, and record what came of it."""
        lane = Lane.of(step.step, "unless")
        policy, claims = self.policies.of(lane), list[Claim]()

        async def due() -> bool:
            claims.extend(await self.store.lanes.claim(lane, policy))
            return bool(claims)

        await until(due)
        (claim,) = await step.prepare(claims, self.recorder)
        now, (fence,) = await self.store.lanes.begin(lane, policy, [Held(claim.work_id, claim.fence)])
        outcomes = await step.run(msgspec.structs.replace(claim, fence=fence), now)
        await self.store.lanes.record(outcomes)
        return list(outcomes)


@pytest.fixture
def statuses() -> list[int]:
    """Which errors the sandbox answers to the first polls; then the job has ended."""
    return [503]


@pytest.fixture
async def server(statuses: list[int]) -> AsyncIterator[TestServer]:
    faults = tuple(Fault(fault=FaultKind.ERROR, on=Call.POLL, status=status) for status in statuses)
    sandbox = TestServer(create_app(SandboxOptions(behaviour=Behaviour(duration=0, jitter=0, faults=faults))))
    await sandbox.start_server(shutdown_timeout=0.1)
    yield sandbox
    await sandbox.close()


@pytest.fixture
async def parts(settings: Settings, server: TestServer) -> AsyncIterator[Parts]:
    made = Parts(settings, server)
    yield made
    await made.http.close()
    await made.store.close()


async def test_parameters_are_validated_once_on_the_way_to_the_provider(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: Counter[str] = Counter()
    validate = Registry.validate

    def counted(registry: Registry, provider: str, operation: str, params: dict[str, object]) -> object:
        validated[operation] += 1
        return validate(registry, provider, operation, params)

    monkeypatch.setattr(Registry, "validate", counted)
    await parts.store.lanes.enqueue([JOB])
    await parts.run(parts.submit())
    job = await parts.store.reads.job("j1")
    assert (job.state, job.ledger.submits) == (JobState.WAITING, 1)
    assert validated == {"query": 1}


async def test_a_poll_tells_the_governor_of_an_outage_and_the_next_one_ends_the_job(parts: Parts) -> None:
    await parts.store.lanes.enqueue([JOB])
    await parts.run(parts.submit())
    _, outage = await parts.run(parts.poll())
    assert isinstance(outage, Outage)
    assert outage.provider == "unless"
    await parts.run(parts.poll())
    job = await parts.store.reads.job("j1")
    assert (job.state, job.ledger.polls) == (JobState.SUCCEEDED, 2)


@pytest.mark.parametrize("statuses", [[400, 404, 405, 409, 401, 421, 404, 423, 425, 431, 451]])
async def test_no_odd_answer_to_polls_ends_a_paid_job(parts: Parts, statuses: list[int]) -> None:
    await parts.store.lanes.enqueue([JOB])
    await parts.run(parts.submit())
    for _ in statuses:
        outcome, *_ = await parts.run(parts.poll(attempts=1))
        assert isinstance(outcome, Retry)
    await parts.run(parts.poll())
    job = await parts.store.reads.job("j1")
    assert (job.state, job.ledger.submits, job.ledger.polls) == (JobState.SUCCEEDED, 1, len(statuses) + 1)


@pytest.mark.parametrize("statuses", [[404] * 100])
async def test_an_external_id_that_stays_unknown_fails_the_job_after_several_polls_over_a_while(parts: Parts) -> None:
    await parts.store.lanes.enqueue([JOB])
    await parts.run(parts.submit())
    polls = [await parts.run(parts.poll(unknown_for=0.2)) for _ in range(UNKNOWN_POLLS - 1)]
    assert [outcome.unknown_polls for outcome, *_ in polls if isinstance(outcome, Retry)] == [1, 2, 3, 4]
    while (await parts.store.reads.job("j1")).state is JobState.WAITING:
        await parts.run(parts.poll(unknown_for=0.2))
    job = await parts.store.reads.job("j1")
    assert job.ended is not None
    assert job.submitted is not None
    assert job.ended - job.submitted >= 0.2
    assert job.error is not None
    assert job.error.code == "external_id_unknown"
