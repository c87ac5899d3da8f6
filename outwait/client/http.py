"""The client's side that speaks to a web process (docs/http-api.md). The same answers and errors as from the store."""

import re
from collections.abc import Sequence
from typing import Any, Unpack

import httpx
import msgspec

from outwait.client.store import Enqueued
from outwait.worker.engine.replays import DeadFilter
from outwait.worker.model.errors import (
    Conflict,
    ExternalIdTaken,
    Forbidden,
    InvalidRequest,
    JobNotFound,
    NotReplayable,
    OperatorError,
    OutwaitError,
    ProviderNotConfigured,
    QuotaExceeded,
    RequestError,
    StorageExceeded,
    StoreRefused,
    StoreUnavailable,
    StoreUnfit,
    Unauthenticated,
    WrongState,
)
from outwait.worker.model.jobs import JOB_ID_PATTERN, Delivery, Job, JobRequest, JobState, TimelineEntry
from outwait.worker.model.outcomes import Choice
from outwait.worker.store.dead import DeadDelivery
from outwait.worker.store.listing import Filter, Page

TIMEOUT_S = 30.0
"""Seconds for an answer, after those that a long poll may take."""

BATCH = 1000
"""Jobs that one request may carry."""

_ERRORS: dict[str, type[OutwaitError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        WrongState,
        Conflict,
        ExternalIdTaken,
        JobNotFound,
        NotReplayable,
        QuotaExceeded,
        StorageExceeded,
        Unauthenticated,
        Forbidden,
        ProviderNotConfigured,
        StoreUnavailable,
        StoreRefused,
        StoreUnfit,
    )
}
"""The errors that a problem's `code` names."""

_BUSY = (429, 503)
"""Statuses of a web process that has too much to do now. The same request may come again, as after an outage."""


class _Problem(msgspec.Struct, frozen=True):
    status: int
    code: str
    title: str
    detail: str = ""


class _Item(msgspec.Struct, frozen=True):
    id: str = ""
    created: bool = False
    problem: _Problem | None = None


class _Items(msgspec.Struct, frozen=True):
    jobs: list[_Item]


class _Jobs(msgspec.Struct, frozen=True):
    jobs: list[Job]
    cursor: str | None = None


class HttpClient:
    """The jobs that an API key may see; use it inside one event loop.

    Args:
        url: of the web process.
        key: an API key (`outwait keys create`).
    """

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._url = url
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def enqueue(self, request: JobRequest, *, trace: str = "") -> Enqueued:
        """Record a job."""
        answer = await self._post("/v1/jobs", request.model_dump(mode="json", exclude_unset=True), trace)
        item = msgspec.json.decode(answer, type=_Item)
        return Enqueued(item.id, item.created)

    async def enqueue_many(
        self, requests: Sequence[tuple[JobRequest, None]], *, trace: str = ""
    ) -> list[Enqueued | RequestError]:
        """Record jobs, a thousand in one request."""
        results: list[Enqueued | RequestError] = []
        for start in range(0, len(requests), BATCH):
            jobs = [job.model_dump(mode="json", exclude_unset=True) for job, _ in requests[start : start + BATCH]]
            answer = await self._post("/v1/jobs", {"jobs": jobs}, trace)
            results += map(_enqueued, msgspec.json.decode(answer, type=_Items).jobs)
        return results

    async def job(self, job_id: str) -> Job:
        """The job as it stands."""
        return msgspec.json.decode(await self._get(_path(job_id)), type=Job)

    async def end_of(self, job_id: str, seconds: float) -> Job:
        """The job as soon as it has ended, or as it stands after so many seconds."""
        answer = await self._get(_path(job_id), {"wait": seconds}, timeout_s=seconds + TIMEOUT_S)
        return msgspec.json.decode(answer, type=Job)

    async def jobs(self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[Filter]) -> Page:
        """Jobs, newest first, page by page."""
        answer = await self._get("/v1/jobs", {"limit": limit, "cursor": cursor, **filters})
        page = msgspec.json.decode(answer, type=_Jobs)
        return Page(page.jobs, page.cursor)

    async def result(self, job_id: str) -> Any:
        """The result as JSON data."""
        return msgspec.json.decode(await self._get(_path(job_id, "/result")))

    async def timeline(self, job_id: str) -> list[TimelineEntry]:
        """What happened to a job."""
        answer = await self._get(_path(job_id, "/timeline"))
        return msgspec.json.decode(answer, type=dict[str, list[TimelineEntry]])["timeline"]

    async def deliveries(self, job_id: str) -> list[Delivery]:
        """The job's deliveries."""
        answer = await self._get(_path(job_id, "/deliveries"))
        return msgspec.json.decode(answer, type=dict[str, list[Delivery]])["deliveries"]

    async def dead(self, limit: int = 50, **filters: Unpack[DeadFilter]) -> list[DeadDelivery]:
        """Deliveries that were given up."""
        answer = await self._get("/v1/dead", {"limit": limit, **filters})
        return msgspec.json.decode(answer, type=dict[str, list[DeadDelivery]])["deliveries"]

    async def replay(self, job_id: str, target: str | None = None) -> int:
        """Repeat deliveries of a job."""
        return _replayed(await self._post(_path(job_id, "/replay"), {"target": target}))

    async def replay_all(self, **filters: Unpack[DeadFilter]) -> int:
        """Repeat dead deliveries."""
        return _replayed(await self._post("/v1/dead/replay", dict(filters)))

    async def cancel(self, job_id: str) -> bool:
        """Give a job up."""
        return msgspec.json.decode(await self._post(_path(job_id, "/cancel")), type=Job).state is JobState.CANCELLED

    async def resolve(self, job_id: str, choice: Choice, external_id: str = "") -> None:
        """Decide about an uncertain job."""
        await self._post(_path(job_id, "/resolve"), {"choice": choice, "external_id": external_id or None})

    async def repoll(self, job_id: str) -> None:
        """Have an ended job polled again."""
        await self._post(_path(job_id, "/repoll"))

    async def pause(self, provider: str, reason: str = "") -> None:
        """Send nothing more to a provider."""
        await self._post(f"/v1/providers/{_part(provider)}/pause", {"reason": reason})

    async def resume(self, provider: str) -> bool:
        """Let a provider go on."""
        answer = await self._post(f"/v1/providers/{_part(provider)}/resume")
        return msgspec.json.decode(answer, type=dict[str, bool])["resumed"]

    async def _get(self, path: str, params: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> bytes:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return await self._send("GET", path, params=given, timeout=timeout_s)

    async def _post(self, path: str, body: dict[str, Any] | None = None, trace: str = "") -> bytes:
        headers = {"traceparent": trace} if trace else None
        return await self._send("POST", path, json=body, headers=headers)

    async def _send(self, method: str, path: str, **content: Any) -> bytes:
        """Raises the error that the answer names, or StoreUnavailable if none comes."""
        try:
            answer = await self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise StoreUnavailable(f"{self._url} does not answer ({error or type(error).__name__})") from error
        if answer.is_success:
            return answer.content
        raise self._error(answer)

    def _error(self, answer: httpx.Response) -> OutwaitError:
        try:
            error = _known(msgspec.json.decode(answer.content, type=_Problem))
        except msgspec.DecodeError:
            return _strange(f"{self._url} answered {answer.status_code} and no problem details", answer.status_code)
        after = answer.headers.get("retry-after", "")
        if isinstance(error, QuotaExceeded) and after.isdecimal():
            error.retry_after = float(after)
        return error


def _enqueued(item: _Item) -> Enqueued | RequestError:
    if item.problem is None:
        return Enqueued(item.id, item.created)
    error = _known(item.problem)
    return error if isinstance(error, RequestError) else InvalidRequest(str(error))


def _known(problem: _Problem) -> OutwaitError:
    """The error that a problem stands for; of one without a class of its own its status tells who must act."""
    message = problem.detail or problem.title
    kind = _ERRORS.get(problem.code)
    if kind is not None:
        return kind(message)
    if problem.status in _BUSY:
        return StoreUnavailable(message)
    return InvalidRequest(message) if problem.status < 500 else OutwaitError(f"{problem.code}: {message}")


def _strange(message: str, status: int) -> OutwaitError:
    """Something else answered: a proxy whose web process is away, or a wrong address."""
    if status >= 500:
        return StoreUnavailable(message)
    return OperatorError(f"{message}: is this the address of `outwait web`?")


def _path(job_id: str, part: str = "") -> str:
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise JobNotFound(f"no job has the id {job_id[:200]!r}: it must match {JOB_ID_PATTERN}")
    return f"/v1/jobs/{job_id}{part}"


def _part(provider: str) -> str:
    if not re.fullmatch(r"[\w-]+", provider, re.ASCII):
        raise InvalidRequest(f"provider: given {provider!r:.80}; there is no such provider")
    return provider


def _replayed(answer: bytes) -> int:
    return msgspec.json.decode(answer, type=dict[str, int])["replayed"]
