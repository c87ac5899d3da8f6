"""ElevateAI by NICE: declare an interaction, upload its file if it has no URL, wait, and read its results.

Facts: docs.elevateai.com and, for the exact spelling of the statuses, NICE's own SDKs and sample bot. docs/providers.md
lists where they disagree, and our decisions.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import msgspec
from pydantic import Field

from outwait.config.groups import BaseUrl
from outwait.worker.model.errors import ExternalIdUnknown, Rejected, Unreadable
from outwait.worker.providers.contract import (
    Credential,
    Failed,
    Operation,
    Pending,
    PollAnswer,
    Provider,
    ProviderSettings,
    Submission,
    SubmitAnswer,
    Succeeded,
    Tenant,
    Waiting,
)
from outwait.worker.providers.elevateai_params import Audio, Chat, Transcript
from outwait.worker.providers.exchange import Count, Exchange, check, external_id, json_data, json_object, retry_after
from outwait.worker.providers.files import File, FileProblem, folder_of, is_url, locate, multipart, open_path, open_url

_DAY = 86400.0

_IN_PROGRESS = frozenset(
    {
        "declared",
        "fileuploading",
        "fileuploaded",
        "filependingdownload",
        "filedownloading",
        "filedownloaded",
        "pendingprocessing",
        "processing",
    }
)

_PARTS = {"transcript": "/transcript", "punctuated": "/transcripts/punctuated", "ai": "/ai"}
"""The paths of a result's parts. Some SDKs use /transcripts; the reference and the other SDKs use /transcript."""

_FOLDER = "OUTWAIT_PROVIDERS__ELEVATEAI__UPLOAD_FOLDER"


class ElevateAISettings(ProviderSettings):
    """`OUTWAIT_PROVIDERS__ELEVATEAI__…`."""

    base_url: BaseUrl = "https://api.elevateai.com/v1"
    api_token: Credential = Field(description="Sent as X-API-Token; it must be activated.")
    upload_folder: Path | None = Field(
        default=None, description="Folder that the paths of files lie in, on every worker; without it only URLs work."
    )
    upload_by_tenant: bool = Field(
        default=False, description="Files of a tenant's jobs must lie in the folder of that name in UPLOAD_FOLDER."
    )
    upload_time_limit: float = Field(default=900, gt=0, description="Seconds that one upload may take.")
    upload_tries: int = Field(default=5, ge=1, description="Uploads of one file before the job fails.")


@dataclass(frozen=True, slots=True)
class _Memo:
    """The memo of a job: whether AI results were requested, and how many uploads and reads failed."""

    ai: bool = False
    uploads: int = 0
    absences: int = 0

    @classmethod
    def read(cls, text: str) -> "_Memo":
        ai, uploads, absences = (int(part) for part in text.split(".")) if text else (0, 0, 0)
        return cls(bool(ai), uploads, absences)

    def __str__(self) -> str:
        return f"{self.ai:d}.{self.uploads}.{self.absences}"


class ElevateAI(Provider):
    """The API of ElevateAI."""

    name = "elevateai"
    settings_model = ElevateAISettings
    # The status may be polled every 30 s for audio and every 5 s for text (reference, processing status). Results are
    # kept up to 45 days (overview). How long processing takes is not documented; the deadline of a day is our choice.
    operations: ClassVar[Mapping[str, Operation]] = {
        "audio": Operation("audio", Audio, poll_every=30, first_poll=30, deadline=_DAY, expiry=45 * _DAY),
        "chat": Operation("chat", Chat, poll_every=5, first_poll=5, deadline=_DAY, expiry=45 * _DAY),
        "transcript": Operation("transcript", Transcript, poll_every=5, first_poll=5, deadline=_DAY, expiry=45 * _DAY),
    }

    def __init__(self, settings: ElevateAISettings) -> None:
        super().__init__(settings)
        self._settings = settings
        token = settings.api_token.get_secret_value()
        self._headers = httpx.Headers({"accept": "application/json", "x-api-token": token})

    async def submit(self, job: Submission, exchange: Exchange) -> SubmitAnswer:
        """POST /interactions. Each declaration costs quota, so a file that cannot be sent is refused before that."""
        source = getattr(job.params, "source", None)
        await self._require(source, job.tenant)
        body = {"type": job.operation, **job.params.model_dump(mode="json", exclude_none=True, exclude={"source"})}
        body.setdefault("externalIdentifier", job.job_id)
        request = self.request("POST", "/interactions", headers=self._json_headers(), content=msgspec.json.encode(body))
        answer = json_object(check(await exchange.send(request, Count.SUBMITS), submit=True))
        identifier = external_id(answer.get("interactionIdentifier"))
        if identifier is None:
            raise Unreadable("the interaction was declared without an interactionIdentifier", detail=sorted(answer))
        memo = _Memo(ai=job.params.includeAiResults)
        return SubmitAnswer(identifier, str(memo), first_poll=0 if source else None)

    async def poll(self, job: Waiting, exchange: Exchange) -> PollAnswer:
        """GET the status; upload the file if the interaction waits for it, or read the results if it is finished."""
        path = "/interactions/" + quote(job.external_id, safe="")
        response = check(await self._get(path + "/status", Count.POLLS, exchange))
        document = json_object(response)
        status = str(document.get("status"))
        match status.lower():
            case "processed":
                return await self._results(job, path, document, exchange)
            case "processingfailed" | "filedownloadfailed":
                return _failed(document)
            case "filependingupload" | "fileuploadfailed":
                return await self._upload(job, path, document, exchange)
            case word if word in _IN_PROGRESS:
                return Pending(status, retry_after(response))
            case _:
                return Pending(status[:60], retry_after(response), f"unknown status {status[:60]!r}")

    async def cancel(self, job: Waiting, exchange: Exchange) -> str:
        """DELETE the interaction: ElevateAI has no cancel."""
        path = "/interactions/" + quote(job.external_id, safe="")
        check(await exchange.send(self.request("DELETE", path, headers=self._headers), Count.FETCHES))
        return "the interaction was deleted"

    async def _get(self, path: str, count: Count, exchange: Exchange) -> httpx.Response:
        return await exchange.send(self.request("GET", path, headers=self._headers), count)

    def _json_headers(self) -> httpx.Headers:
        return httpx.Headers({**self._headers, "content-type": "application/json"})

    async def _require(self, source: str | None, tenant: Tenant) -> None:
        if source is None or is_url(source):
            return
        try:
            await self._locate(source, tenant)
        except FileProblem as problem:
            raise Rejected(f"params.source: {problem}") from problem

    def recognises(self, body: Any) -> bool:
        """A status, or an error as `{errorMessage}` (reference, processing status)."""
        return isinstance(body, dict) and ("errorMessage" in body or {"identifier", "status"} <= body.keys())

    async def _results(
        self, job: Waiting, path: str, document: dict[str, Any], exchange: Exchange
    ) -> Pending | Succeeded:
        memo = _Memo.read(job.memo)
        audio = job.operation == "audio"  # texts have no transcripts, and nothing but AI results
        names = (*(("transcript", "punctuated") if audio else ()), *(("ai",) if memo.ai or not audio else ()))
        parts = {name: await self._part(path + _PARTS[name], exchange) for name in names}
        ordered = names if audio or memo.ai else ()
        missing = " and ".join(name for name in ordered if parts[name] is _ABSENT)
        result = {name: None if parts.get(name) is _ABSENT else parts.get(name) for name in _PARTS}
        warning = f"the provider has no {missing}, although it was ordered: null in the result" if missing else ""
        answer = Succeeded({"interaction": document, **result}, document["status"], warning)
        if not missing or memo.absences >= _ABSENCES:
            return answer
        again = replace(memo, absences=memo.absences + 1)
        interval = self._settings.poll_every or self.operations[job.operation].poll_every
        warning = f"processed, but there is no {missing} yet"
        return Pending(answer.status, interval * 2**memo.absences, warning, str(again), partial=answer)

    async def _part(self, path: str, exchange: Exchange) -> Any:
        try:
            response = check(await self._get(path, Count.FETCHES, exchange))
        except ExternalIdUnknown:
            return _ABSENT
        if response.status_code == 204:
            return {}
        part = json_data(response)
        if not isinstance(part, dict | list):
            raise Unreadable(f"{path} answered {response.status_code} without JSON", status=response.status_code)
        return part

    async def _upload(self, job: Waiting, path: str, document: dict[str, Any], exchange: Exchange) -> Pending | Failed:
        status, memo = str(document["status"]), _Memo.read(job.memo)
        params = await job.params()
        source = getattr(params, "source", None)
        if source is None:
            return Pending(status, warning="the interaction waits for a file, but the job has none")
        if memo.uploads >= self._settings.upload_tries:
            message = f"{status} after {memo.uploads} uploads: {_message(document)}"
            return Failed(status, "upload_failed", message, document)
        counted = str(replace(memo, uploads=memo.uploads + 1))
        try:
            async with await self._open(source, params.file_name, job.tenant, exchange) as file:
                return replace(await self._send(file, path, status, exchange), memo=counted)
        except FileProblem as problem:
            if problem.lasting:
                return Failed(status, "file_unreadable", str(problem))
            return Pending(status, warning=str(problem), memo=counted)
        except Rejected as error:  # too large or not audio: sending the same file again cannot help
            return Failed(status, "upload_refused", str(error), error.detail)

    async def _open(
        self, source: str, name: str, tenant: Tenant, exchange: Exchange
    ) -> AbstractAsyncContextManager[File]:
        if is_url(source):
            return open_url(source, name, exchange, self._settings.upload_time_limit)
        return open_path(await self._locate(source, tenant), name)

    async def _locate(self, source: str, tenant: Tenant) -> Path:
        folder = self._settings.upload_folder
        if self._settings.upload_by_tenant:
            folder = folder_of(await tenant(), folder)
        return await locate(source, folder, _FOLDER)

    async def _send(self, file: File, path: str, status: str, exchange: Exchange) -> Pending:
        form = multipart(file)
        request = self.request(
            "POST",
            path + "/upload",
            headers=httpx.Headers({**self._headers, **form["headers"]}),
            content=form["content"],
        )
        try:
            response = await exchange.send(request, Count.FETCHES, timeout=self._settings.upload_time_limit)
        except Exception:
            if file.problem is not None:
                raise file.problem from None
            raise
        if response.status_code == 409:  # an earlier upload has arrived; the next status shows it
            return Pending(status, warning="the file was uploaded already")
        check(response)
        return Pending(status)


_ABSENT = object()
"""A part of a result that the provider does not have."""

_ABSENCES = 5
"""How many polls of a processed interaction may lack an ordered part before the result is accepted without it.

They come ever more slowly: in a quarter of an hour for audio, in two and a half minutes for texts.
"""


def _message(document: dict[str, Any]) -> str:
    message = document.get("errorMessage")
    return message[:500] if isinstance(message, str) and message else "the provider gave no reason"


def _failed(document: dict[str, Any]) -> Failed:
    status = str(document["status"])
    return Failed(status, status, _message(document))
