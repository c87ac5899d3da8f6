"""The common part of all providers: how a request is counted, gets its fault, is checked and answered."""

import asyncio
import hashlib
import hmac
import math
import random
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from outwait.sandbox.behaviour import BadOrder, Behaviour, Call, Fault, FaultKind, Outcome, Plan
from outwait.sandbox.faults import BEFORE, spoil
from outwait.sandbox.ledger import Job, Ledger, Totals
from outwait.sandbox.limits import Limiter
from outwait.sandbox.options import SandboxOptions
from outwait.sandbox.orders import Orders, find_marker, read_marker
from outwait.sandbox.webhooks import Webhooks


class Refusal(Exception):
    """An error answer. `code` and `parameter` are used by the providers that have such fields."""

    def __init__(
        self, status: int, message: str, *, code: str = "", parameter: str = "", wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.parameter = parameter
        self.wait = wait


class State:
    """The state that all providers of one sandbox share."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.webhooks = Webhooks(lambda: self.ledger, options.webhook_backoff)
        self.reset()

    def reset(self) -> None:
        """Forget jobs, orders and counts."""
        self.rng = random.Random(self.options.seed)
        self.orders = Orders(self.options.behaviour, self.rng)
        self.ledger = Ledger()
        self.webhooks.forget()


@dataclass(slots=True)
class Ask:
    """One request to a provider."""

    request: web.Request
    call: Call
    job: Job | None = None
    plan: Plan | None = None
    behaviour: Behaviour | None = None  # of its job's marker
    digest: str = ""
    data: Any = None  # a submit's JSON


Process = Callable[[Ask], Awaitable[web.Response]]


class Vendor(ABC):
    """One provider of the sandbox."""

    name: ClassVar[str]
    root: ClassVar[str]  # the path that its API begins with

    def __init__(self, state: State) -> None:
        self.state = state
        self.reset()

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """Its routes, with their full paths, below `root`."""

    @abstractmethod
    def reset(self) -> None:
        """Forget limits and sessions."""

    @abstractmethod
    def limiter(self, call: Call) -> Limiter:
        """The limit that this kind of request counts against."""

    @abstractmethod
    def authorise(self, ask: Ask) -> None:
        """Check the credentials. Raises Refusal."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> web.Response:
        """An error answer in the provider's own form."""

    def finish(self, ask: Ask, answer: web.Response) -> None:  # noqa: B027 - not every provider has such headers
        """Add the headers that every answer carries."""

    async def submit(self, request: web.Request, process: Process) -> web.Response:
        """Answer a submit. A marker in its body, or in the header `X-Sandbox`, orders how the job behaves."""
        try:
            body = await request.read()
        except ConnectionError:
            return web.Response()  # the client has disconnected
        ask = Ask(request, Call.SUBMIT, digest=_digest(request.path, body))
        try:
            ask.data = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            ask.data = None
        try:
            if (marker := _marker(request, body, ask.data)) is not None:
                ask.behaviour, ask.plan = self.state.orders.marked(self.name, ask.digest, marker)
        except BadOrder as error:
            return self.refuse(Refusal(400, str(error)))
        return await self.handle(ask, process)

    async def about(self, request: web.Request, call: Call, job_id: str, process: Process) -> web.Response:
        """Answer a request about a job, which may be unknown."""
        job = self.state.ledger.jobs.get(job_id)
        if job is not None and job.provider != self.name:
            job = None
        if job is not None:
            self._count(job, call)
        return await self.handle(Ask(request, call, job, job.plan if job else None), process)

    async def handle(self, ask: Ask, process: Process) -> web.Response:
        """Answer a request: count it, apply its fault, check limit and credentials, process it."""
        totals = self.state.ledger.of(self.name)
        totals.requests[ask.call] += 1
        totals.in_flight += 1
        totals.in_flight_peak = max(totals.in_flight_peak, totals.in_flight)
        try:
            answer = await self._answer_with_fault(ask, process, totals)
        finally:
            totals.in_flight -= 1
        totals.rate_limited += answer.status == 429
        totals.refused += 400 <= answer.status < 500 and answer.status != 429
        return answer

    def accept(self, ask: Ask, operation: str, text: str) -> Job:
        """Create the job of a submit. `begin` starts its work."""
        job = Job(
            id=str(uuid.uuid4()),
            provider=self.name,
            operation=operation,
            digest=ask.digest,
            text=text,
            behaviour=ask.behaviour or self.state.orders.behaviour(self.name),
            plan=ask.plan,
            submitted=time.time(),
        )
        self.state.ledger.add(job)
        ask.job = job
        return job

    def begin(self, job: Job, *, at_once: bool = False) -> None:
        """Start the work on a job; `at_once`: it ends immediately."""
        behaviour = job.behaviour
        duration = behaviour.duration * (1 + behaviour.jitter * self.state.rng.uniform(-1, 1))
        job.begin(time.time(), 0 if at_once else duration)

    def job_of(self, ask: Ask, life: float | None) -> Job:
        """The job of a request. Raises Refusal 404 if it is unknown, deleted or expired."""
        job = ask.job
        if job is not None and not job.deleted:
            expiry = job.behaviour.expiry if job.behaviour.expiry is not None else life
            if expiry is None or time.time() < job.submitted + expiry:
                return job
        raise Refusal(404, "The requested resource was not found")

    def _count(self, job: Job, call: Call) -> None:
        if call is Call.POLL:
            fast = job.poll(time.time(), self.state.options.poll_minimum)
            self.state.ledger.of(self.name).polls_too_fast += fast
        elif call is Call.FETCH:
            job.fetches += 1

    async def _answer_with_fault(self, ask: Ask, process: Process, totals: Totals) -> web.Response:
        arrived = time.time()
        fault = self.state.orders.fault(self.name, ask.call, ask.plan)
        totals.faults += fault is not None
        if latency := self._latency(ask):
            await asyncio.sleep(latency)
        if fault is not None and fault.fault in BEFORE:
            return await spoil(fault, ask.request, self._error(fault))
        try:
            self._admit(ask, fault, totals, arrived)
            self.authorise(ask)
            answer = await process(ask)
        except Refusal as refusal:
            answer = self.refuse(refusal)
        self.finish(ask, answer)
        if fault is None or fault.fault is FaultKind.RATE_LIMIT:
            return answer
        if ask.call is Call.SUBMIT and ask.job is not None:
            ask.job.spoiled = fault.fault
        return await spoil(fault, ask.request, self._error(fault) if fault.fault is FaultKind.ERROR_AFTER else answer)

    def _latency(self, ask: Ask) -> float:
        if ask.job is not None and ask.plan is not None:
            return ask.job.behaviour.latency
        return (ask.behaviour or self.state.orders.behaviour(self.name)).latency

    def _admit(self, ask: Ask, fault: Fault | None, totals: Totals, arrived: float) -> None:
        limiter = self.limiter(ask.call)
        now = time.time()
        if limiter.penal(now):
            totals.trespass(arrived, limiter.announced)
        if fault is not None and fault.fault is FaultKind.RATE_LIMIT:
            limiter.punish(now, fault.seconds)
        wait = limiter.wait(now)
        if wait is None and fault is not None and fault.fault is FaultKind.RATE_LIMIT:
            wait = 0.0  # a penalty of no length: only this answer
        if wait is not None:
            raise Refusal(429, "Request rate exceeded", wait=wait)

    def _error(self, fault: Fault) -> web.Response:
        return self.refuse(Refusal(fault.status, f"Ordered fault: {fault.fault.value}", wait=fault.seconds))


def answer(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json", headers=headers)


def retry_after(refusal: Refusal) -> dict[str, str]:
    """The Retry-After header, in whole seconds, if the refusal has one."""
    return {} if refusal.wait is None else {"Retry-After": str(max(1, math.ceil(refusal.wait)))}


def same_secret(given: str, secret: str) -> bool:
    """Whether a header holds the secret. It may hold anything, bytes that are no text too."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), secret.encode())


def failed(job: Job) -> bool:
    """Whether an ended job failed."""
    return job.behaviour.outcome in (Outcome.FAILURE, Outcome.DOWNLOAD_FAILURE)


def _marker(request: web.Request, body: bytes, data: object) -> dict[str, Any] | None:
    if header := request.headers.get("X-Sandbox"):
        return read_marker(header)
    return find_marker(data) if b"sandbox" in body else None


def _digest(path: str, body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12, key=path.encode()[-64:]).hexdigest()
