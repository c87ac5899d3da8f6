"""What every provider must do, against the sandbox over real HTTP. A new provider subclasses `ProviderContract`."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from outwait.sandbox import Behaviour, Fault, SandboxOptions, create_app, environment
from outwait.sandbox.behaviour import Call, FaultKind, Outcome
from outwait.worker.engine.rate_feedback import LONGEST_PAUSE, provider_feedback
from outwait.worker.model.errors import (
    AnswerLost,
    ExternalIdUnknown,
    InvalidRequest,
    NotSent,
    ProviderError,
    RateLimited,
    ResultTooLarge,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from outwait.worker.model.outcomes import Pause
from outwait.worker.net.http import Http
from outwait.worker.net.outbound import Guard
from outwait.worker.providers.contract import Failed, Pending, PollAnswer, Submission, SubmitAnswer, Succeeded, Waiting
from outwait.worker.providers.exchange import Count, Exchange, TokenStore
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.connection import Connection
from outwait.worker.store.tokens import Tokens
from tests.patience import PATIENCE


def raw_settings(base_url: str) -> dict[str, dict[str, Any]]:
    """The settings that point at a sandbox, as `Settings.providers` holds them."""
    raw: dict[str, dict[str, Any]] = defaultdict(dict)
    for variable, value in environment(base_url).items():
        _, provider, name = variable.split("__")
        raw[provider.lower()][name.lower()] = value
    return dict(raw)


def secrets(provider: str) -> list[str]:
    """The provider's credentials in the sandbox."""
    settings = build(raw_settings("http://127.0.0.1")).limits(provider)
    values = [getattr(settings, name) for name in type(settings).model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


class World:
    """A sandbox, and one provider that is pointed at it."""

    def __init__(self, server: TestServer, http: Http, tokens: TokenStore, case: "ProviderContract") -> None:
        self.server = server
        self.http = http
        self.tokens = tokens
        self.case = case
        self.params: dict[str, Any] = dict(case.params)
        self.raw = raw_settings(str(server.make_url("")))
        self.exchange = self.converse()

    def converse(self, time_limit: float = PATIENCE) -> Exchange:
        """A new conversation, whose ledger is empty."""
        self.exchange = Exchange(self.http, self.tokens, time_limit)
        return self.exchange

    def registry(self, **changes: Any) -> Registry:
        """The registry, with settings of the provider changed."""
        name = self.case.name
        return build({**self.raw, name: {**self.raw[name], **changes}})

    async def submit(self, registry: Registry | None = None, webhook_url: str | None = None) -> SubmitAnswer:
        """Submit a job as the engine does."""
        registry = registry or self.registry()
        provider = registry.get(self.case.name)
        await provider.prepare(self.exchange)
        params = registry.validate(self.case.name, self.case.operation, self.params)
        return await provider.submit(Submission("job-1", self.case.operation, params, webhook_url), self.exchange)

    async def poll(self, submitted: SubmitAnswer, registry: Registry | None = None) -> PollAnswer:
        """Poll a job once."""
        registry = registry or self.registry()

        async def params() -> Any:
            return registry.validate(self.case.name, self.case.operation, self.params)

        job = Waiting("job-1", self.case.operation, submitted.external_id, submitted.memo, 0, params)
        return await registry.get(self.case.name).poll(job, self.exchange)

    async def finish(self, submitted: SubmitAnswer, registry: Registry | None = None) -> Succeeded | Failed:
        """Poll until the job ends."""
        end = time.monotonic() + PATIENCE
        registry = registry or self.registry()
        while isinstance(answer := await self.poll(submitted, registry), Pending):
            assert time.monotonic() < end, f"still {answer}"
            if answer.memo is not None:
                assert len(answer.memo.encode()) <= 64
                submitted = SubmitAnswer(submitted.external_id, answer.memo)
            await asyncio.sleep(0.02)
        return answer

    async def requests(self) -> dict[str, int]:
        """What arrived at the sandbox, by kind."""
        totals = (await self.ledger())["totals"].get(self.case.name, {})
        return defaultdict(int, totals.get("requests", {}))

    async def jobs(self) -> list[dict[str, Any]]:
        """The jobs that the sandbox accepted."""
        return list((await self.ledger())["jobs"])

    async def ledger(self) -> dict[str, Any]:
        """The sandbox's ledger."""
        async with self.http._kept.get(self.server.make_url("/_ledger")) as answer:
            return dict(await answer.json())

    async def control(self, path: str, order: dict[str, Any]) -> None:
        """Tell the sandbox something."""
        async with self.http._kept.post(self.server.make_url(f"/_control/{path}"), json=order) as answer:
            assert answer.status == 200, await answer.text()


Start = Callable[..., Awaitable[World]]


class ProviderContract:
    """Tests that any provider passes.

    Attributes:
        name: of the provider.
        operation: any of its operations.
        params: a valid job for it.
        wrong: settings with wrong credentials.
    """

    name: ClassVar[str]
    operation: ClassVar[str]
    params: ClassVar[dict[str, Any]]
    wrong: ClassVar[dict[str, Any]]

    @pytest.fixture
    async def start(self, connection: Connection) -> AsyncIterator[Start]:
        opened: list[tuple[TestServer, Http]] = []

        async def begin(*faults: Fault, body_max: int = 1 << 22, **options: Any) -> World:
            defaults = {"duration": 0.1, "jitter": 0, **options.pop("behaviour", {})}
            behaviour = Behaviour(**defaults, faults=faults)
            server = TestServer(create_app(SandboxOptions(behaviour=behaviour, **options)))
            await server.start_server(shutdown_timeout=0.1)
            http = Http(body_max=body_max, guard=Guard(["127.0.0.1"]))
            opened.append((server, http))
            return World(server, http, Tokens(connection), self)

        yield begin
        for server, http in opened:
            await http.close()
            await server.close()

    async def test_a_job_is_submitted_polled_and_read(self, start: Start) -> None:
        world = await start()
        submitted = await world.submit()
        assert submitted.external_id
        assert len(submitted.memo.encode()) <= 64
        answer = await world.finish(submitted)
        assert isinstance(answer, Succeeded)
        assert answer.status
        assert msgspec.json.decode(msgspec.json.encode(answer.result)) == answer.result
        await self.counted(world)

    async def test_a_failure_at_the_provider_says_why(self, start: Start) -> None:
        world = await start(behaviour={"outcome": Outcome.FAILURE})
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Failed)
        assert answer.status
        assert answer.code
        assert answer.message
        await self.counted(world)

    async def test_an_unknown_status_is_unfinished_with_a_warning(self, start: Start) -> None:
        world = await start(behaviour={"word": "brandNew", "duration": 60})
        answer = await world.poll(await world.submit())
        assert isinstance(answer, Pending)
        assert answer.status == "brandNew"
        assert "brandNew" in (answer.warning or "")

    async def test_a_submit_over_the_limit_was_refused_for_certain(self, start: Start) -> None:
        world = await start(_fault(FaultKind.RATE_LIMIT, Call.SUBMIT, seconds=7))
        error = await self.fails(RateLimited, world.submit())
        assert error.retry_after == pytest.approx(7, abs=0.5)
        assert await world.jobs() == []
        await self.counted(world)

    async def test_a_poll_over_the_limit_waits(self, start: Start) -> None:
        world = await start(_fault(FaultKind.RATE_LIMIT, Call.POLL, seconds=7))
        error = await self.fails(RateLimited, world.poll(await world.submit()))
        assert error.retry_after == pytest.approx(7, abs=0.5)
        await self.counted(world)

    @pytest.mark.parametrize("status", [500, 502, 503])
    async def test_an_outage_is_told_from_a_refusal(self, start: Start, status: int) -> None:
        world = await start(
            _fault(FaultKind.ERROR, Call.SUBMIT, status=status), _fault(FaultKind.ERROR, Call.POLL, status=status)
        )
        error = await self.fails(Unavailable, world.submit())
        assert error.status == status
        assert (await self.fails(Unavailable, world.poll(await world.submit()))).status == status
        await self.counted(world)

    async def test_retry_after_of_an_outage_is_handed_on(self, start: Start) -> None:
        world = await start(_fault(FaultKind.ERROR, Call.SUBMIT, seconds=11))
        assert (await self.fails(Unavailable, world.submit())).retry_after == 11

    async def test_a_refused_request_will_never_be_accepted(self, start: Start) -> None:
        world = await start(_fault(FaultKind.ERROR, Call.SUBMIT, status=400))
        error = await self.fails(ProviderError, world.submit())
        assert error.code == "rejected"
        assert "Ordered fault" in str(error), "the provider's own text is missing: does `check` need a `text`?"

    @pytest.mark.parametrize("kind", [FaultKind.HTML, FaultKind.BROKEN_JSON, FaultKind.EMPTY])
    async def test_garbage_is_unreadable(self, start: Start, kind: FaultKind) -> None:
        world = await start(_fault(kind, Call.SUBMIT), _fault(kind, Call.POLL))
        await self.fails(Unreadable, world.submit())
        assert len(await world.jobs()) == 1, "the job was taken: whoever repeats it pays twice"
        await self.fails(Unreadable, world.poll(await world.submit()))
        await self.counted(world)

    async def test_a_wrong_content_type_is_forgiven(self, start: Start) -> None:
        world = await start(_fault(FaultKind.CONTENT_TYPE, Call.SUBMIT), _fault(FaultKind.CONTENT_TYPE, Call.POLL))
        assert isinstance(await world.finish(await world.submit()), Succeeded)

    async def test_a_byte_order_mark_is_forgiven(self, start: Start) -> None:
        kind = FaultKind.BYTE_ORDER_MARK
        world = await start(_fault(kind, Call.SUBMIT), _fault(kind, Call.POLL), _fault(kind, Call.FETCH))
        assert isinstance(await world.finish(await world.submit()), Succeeded)

    @pytest.mark.parametrize("wait", ["inf", "nan", "-1", "999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "\xff"])
    async def test_no_header_breaks_a_step_or_stops_the_provider_for_long(self, start: Start, wait: str) -> None:
        names = ("Retry-After", "X-Rate-Limit-Window", "X-Rate-Limit-Reset", "Date", "Expires")
        headers = {**dict.fromkeys(names, wait), "X-Rate-Limit-Remaining": "0"}
        world = await start(
            *(_fault(FaultKind.HEADERS, call, headers=headers, times=None) for call in (Call.SUBMIT, Call.POLL))
        )
        registry = world.registry()
        submitted = await world.submit(registry)
        await world.finish(submitted, registry)
        feedback = provider_feedback(self.name, registry.limits(self.name), None, world.exchange.pause)
        assert all(isinstance(one, Pause) and one.pause_ms <= LONGEST_PAUSE * 1000 for one in feedback)

    async def test_nobody_listens(self, start: Start) -> None:
        world = await start()
        registry = world.registry()
        submitted = await world.submit(registry)
        world.converse()
        await world.server.close()
        await self.fails(NotSent, world.submit(registry))
        await self.fails(NotSent, world.poll(submitted, registry))
        assert world.exchange.ledger.total() == 0

    async def test_an_answer_that_is_lost_after_the_job_was_taken(self, start: Start) -> None:
        world = await start(_fault(FaultKind.DROP_AFTER, Call.SUBMIT))
        await self.fails(AnswerLost, world.submit())
        assert len(await world.jobs()) == 1
        await self.counted(world)

    async def test_an_answer_that_never_comes(self, start: Start) -> None:
        world = await start(_fault(FaultKind.HANG, Call.SUBMIT), _fault(FaultKind.HANG, Call.POLL))
        await world.registry().get(self.name).prepare(world.exchange)
        world.converse(time_limit=1.5)
        await self.fails(AnswerLost, world.submit())
        submitted = await world.submit()
        await self.fails(AnswerLost, world.poll(submitted))
        await self.counted(world)

    async def test_wrong_credentials(self, start: Start) -> None:
        world = await start()
        submitted = await world.submit()
        registry = world.registry(**self.wrong)
        await self.fails(Unauthorized, world.submit(registry))
        await self.fails(Unauthorized, world.poll(submitted, registry))
        assert len(await world.jobs()) == 1

    @pytest.mark.parametrize("external_id", ["0a0a0a0a-0000-4000-8000-000000000000", "a/b?c=d&e#f", "../x", "ü %2F"])
    async def test_an_unknown_id(self, start: Start, external_id: str) -> None:
        world = await start()
        await self.fails(ExternalIdUnknown, world.poll(SubmitAnswer(external_id)))
        assert (await world.requests())["poll"] == 1, "odd characters must not lead elsewhere"
        await self.counted(world)

    async def test_an_answer_that_is_too_large(self, start: Start) -> None:
        world = await start(body_max=20_000, behaviour={"result_bytes": 50_000})
        await self.fails(ResultTooLarge, world.finish(await world.submit()))

    async def test_parameters_are_checked_before_anything_is_sent(self, start: Start) -> None:
        world = await start()
        world.params["nonsense"] = 1
        with pytest.raises(InvalidRequest, match=r"params\.nonsense: there is no such parameter"):
            await world.submit()
        assert (await world.requests())["submit"] == 0

    async def counted(self, world: World) -> None:
        """Our ledger is the sandbox's."""
        arrived = await world.requests()
        assert {
            Count.SUBMITS: arrived["submit"],
            Count.POLLS: arrived["poll"],
            Count.FETCHES: arrived["fetch"] + arrived["upload"],
        } == {count: world.exchange.ledger[count] for count in (Count.SUBMITS, Count.POLLS, Count.FETCHES)}
        assert world.exchange.ledger[Count.NONE] == 0

    async def fails(self, kind: type[ProviderError], work: Awaitable[Any]) -> ProviderError:
        """The work raises this error, which tells no secret."""
        with pytest.raises(kind) as caught:
            await work
        error = caught.value
        for secret in ("sandbox-signature", "5a4d-4b0e", "Bearer", *secrets(self.name)):
            assert secret not in f"{error} {error.detail}"
        return error


def _fault(kind: FaultKind, call: Call, **more: Any) -> Fault:
    return Fault(fault=kind, on=call, **more)


def web_app(*routes: web.RouteDef) -> web.Application:
    """A server of a test's own."""
    app = web.Application()
    app.add_routes(routes)
    return app
