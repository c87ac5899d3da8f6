"""ElevateAI by NICE: declare, upload, status, results, delete.

Facts: ElevateAI's documentation; the spelling of the thirteen statuses is from NICE's own sample bot.
"""

import hashlib
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from outwait.sandbox import credentials
from outwait.sandbox.behaviour import Call, Outcome
from outwait.sandbox.ledger import Job, note
from outwait.sandbox.limits import Limiter
from outwait.sandbox.results import elevateai_ai, elevateai_phrases, elevateai_punctuated
from outwait.sandbox.vendor import Ask, Refusal, Vendor, answer, failed, retry_after, same_secret

_LIFE = 45 * 86400.0
"""Seconds that results are kept (documented: up to 45 days)."""

_AUDIO = ("en-us", "en", "es-419", "pt-br", "ja", "auto")
_TEXT = ("en-us", "en", "es-419")

_DOWNLOADED = 0.4
"""Share of a job's time at which its file has been downloaded."""

_BY_URL = (
    (0.1, "declared"),
    (0.2, "filePendingDownload"),
    (_DOWNLOADED, "fileDownloading"),
    (0.5, "fileDownloaded"),
    (0.6, "pendingProcessing"),
    (1.0, "processing"),
)
_BY_UPLOAD = ((0.2, "fileUploaded"), (0.4, "pendingProcessing"), (1.0, "processing"))
_BY_TEXT = ((0.2, "declared"), (0.4, "pendingProcessing"), (1.0, "processing"))

_RESULTS = {
    "transcript": elevateai_phrases,
    "transcripts/punctuated": elevateai_punctuated,
    "ai": elevateai_ai,
}

_PATHS = {**{name: name for name in _RESULTS}, "transcripts": "transcript"}
"""The results by path. The reference knows no `transcripts`, but NICE's SDKs for Java and Python read it."""

_FIELDS = {
    name.lower(): name
    for name in (
        "type",
        "languageTag",
        "vertical",
        "model",
        "audioTranscriptionMode",
        "includeAiResults",
        "downloadUri",
        "originalFilename",
        "externalIdentifier",
        "metadata",
        "chat",
        "transcript",
    )
}
"""A declaration's fields. Their case is ignored: one of NICE's SDKs writes two of them in lower case."""


class ElevateAI(Vendor):
    """The API of ElevateAI."""

    name = "elevateai"
    root = credentials.ELEVATEAI

    def reset(self) -> None:
        """Forget the limit."""
        options = self.state.options
        self._limiter = Limiter(options.elevateai_limit, options.window, options.penalty)

    def routes(self) -> list[web.RouteDef]:
        """Declare, upload, status, declared parameters, results, delete."""
        root = f"{self.root}/interactions"
        return [
            web.post(root, self.declare),
            web.post(f"{root}/", self.declare),
            web.post(f"{root}/{{id}}/upload", partial(self.ask, Call.UPLOAD, self._upload)),
            web.get(f"{root}/{{id}}/status", partial(self.ask, Call.POLL, self._status)),
            web.get(f"{root}/{{id}}", partial(self.ask, Call.OTHER, self._declared)),
            web.delete(f"{root}/{{id}}", partial(self.ask, Call.OTHER, self._delete)),
            *(
                web.get(f"{root}/{{id}}/{path}", partial(self.ask, Call.FETCH, partial(self._result, name)))
                for path, name in _PATHS.items()
            ),
        ]

    def limiter(self, call: Call) -> Limiter:  # noqa: ARG002 - one limit for all
        """One counter for everything."""
        return self._limiter

    def authorise(self, ask: Ask) -> None:
        """The token in `X-API-Token`."""
        token = ask.request.headers.get("X-API-Token", "")
        if not same_secret(token, credentials.API_TOKEN):
            raise Refusal(401, "The API token is missing or not active")

    def refuse(self, refusal: Refusal) -> web.Response:
        """`{errorMessage}`."""
        return answer({"errorMessage": refusal.message}, refusal.status, retry_after(refusal))

    async def declare(self, request: web.Request) -> web.Response:
        """POST /interactions."""
        return await self.submit(request, self._declare)

    async def ask(self, call: Call, process: Any, request: web.Request) -> web.Response:
        """A request about one interaction."""
        return await self.about(request, call, request.match_info["id"], process)

    async def _declare(self, ask: Ask) -> web.Response:
        facts = _declaration(ask.data)
        job = self.accept(ask, facts["type"], _recognisable(facts))
        kept = ("languageTag", "vertical", "audioTranscriptionMode", "downloadUri", "includeAiResults")
        job.facts = {name: facts.get(name) for name in kept}
        if job.operation != "audio" or job.facts["downloadUri"]:
            self.begin(job)
        else:
            job.facts["status"] = "filePendingUpload"
        return answer({"interactionIdentifier": job.id}, 201)

    async def _upload(self, ask: Ask) -> web.Response:
        job = self.job_of(ask, _LIFE)
        if job.facts.get("status") not in ("filePendingUpload", "fileUploadFailed"):
            raise Refusal(409, "The interaction is not waiting for an upload")
        before, job.facts["status"] = job.facts["status"], "fileUploading"
        try:
            file = await self._receive(ask.request)
        except BaseException:
            job.facts["status"] = before
            raise
        note(job.uploads, file)
        job.facts["uploads"] = job.facts.get("uploads", 0) + 1
        if job.facts["uploads"] <= job.behaviour.upload_failures:
            job.facts["status"] = "fileUploadFailed"
        else:
            del job.facts["status"]
            job.facts["uploaded"] = time.time()
            self.begin(job)
        return web.Response(status=self.state.options.upload_status)

    async def _receive(self, request: web.Request) -> dict[str, Any]:
        if not request.content_type.startswith("multipart/"):
            raise Refusal(400, "The upload must be multipart/form-data with one file")
        try:
            return await self._measure(await _file(request))
        except (ValueError, ConnectionError, HttpProcessingError) as error:
            raise Refusal(400, f"The multipart body cannot be read: {error}") from error

    async def _measure(self, part: BodyPartReader) -> dict[str, Any]:
        size, sha256 = 0, hashlib.sha256()
        while chunk := await part.read_chunk(65536):
            size += len(chunk)
            if size > self.state.options.upload_max:
                raise Refusal(413, f"The file is larger than {self.state.options.upload_max} bytes")
            sha256.update(chunk)
        return {"at": time.time(), "filename": part.filename, "size": size, "sha256": sha256.hexdigest()}

    async def _status(self, ask: Ask) -> web.Response:
        job, now = self.job_of(ask, _LIFE), time.time()
        status = _status(job, now)
        downloaded = job.started + job.length * _DOWNLOADED
        arrived = bool(job.facts["downloadUri"]) and now >= downloaded and not _undownloadable(job)
        return answer(
            {
                "identifier": job.id,
                "status": status,
                "declared": _when(job.submitted),
                "uploaded": _when(job.facts["uploaded"]) if "uploaded" in job.facts else None,
                "downloaded": _when(downloaded) if arrived else None,
                "processed": _when(job.ready) if status in ("processed", "processingFailed") else None,
                "errorMessage": f"Ordered failure: {job.text}" if status.endswith("Failed") else None,
            }
        )

    async def _declared(self, ask: Ask) -> web.Response:
        job = self.job_of(ask, _LIFE)
        names = ("languageTag", "vertical", "audioTranscriptionMode")
        return answer(
            {
                "identifier": job.id,
                "type": job.operation,
                **{name: job.facts[name] for name in names},
                "transcript": None,
                "chat": None,
                "downloadUri": job.facts["downloadUri"],
                "includeAiResults": bool(job.facts["includeAiResults"]),
            }
        )

    async def _result(self, name: str, ask: Ask) -> web.Response:
        job = self.job_of(ask, _LIFE)
        if _status(job, time.time()) != "processed":
            raise Refusal(404, "The interaction has not been processed")
        if name == "ai" and not job.facts["includeAiResults"]:
            raise Refusal(404, "The interaction was declared without AI results")
        if name != "ai" and job.operation != "audio":
            raise Refusal(404, f"A {job.operation} interaction has no audio transcript")
        if name != "transcript" and _absent_once_more(job, name):
            raise Refusal(404, "There is no such result")
        if name == "transcripts/punctuated" and job.behaviour.punctuated_empty:
            return web.Response(status=204)
        return answer(_RESULTS[name](job))

    async def _delete(self, ask: Ask) -> web.Response:
        self.job_of(ask, _LIFE).deleted = True
        return web.Response()


def _status(job: Job, now: float) -> str:
    if "status" in job.facts:  # uploads set it, not the clock
        return str(job.facts["status"])
    stages = _BY_TEXT if job.operation != "audio" else _BY_URL if job.facts["downloadUri"] else _BY_UPLOAD
    share, behaviour = job.share(now), job.behaviour
    if share < 1:
        share *= _DOWNLOADED if _undownloadable(job) else 1
        return behaviour.word or next(status for end, status in stages if share < end)
    if behaviour.outcome is Outcome.UNKNOWN:
        return behaviour.word or "suspended"
    if _undownloadable(job):
        return "fileDownloadFailed"
    return "processingFailed" if failed(job) else "processed"


def _absent_once_more(job: Job, name: str) -> bool:
    absences: dict[str, int] = job.facts.setdefault("absences", {})
    absences[name] = absences.get(name, 0) + 1
    return absences[name] <= job.behaviour.absences


def _undownloadable(job: Job) -> bool:
    return bool(job.facts["downloadUri"]) and job.behaviour.outcome is Outcome.DOWNLOAD_FAILURE


def _declaration(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object")
    data: dict[str, Any] = {_FIELDS.get(str(name).lower(), str(name)): value for name, value in body.items()}
    kind = data.get("type")
    if kind not in ("audio", "chat", "transcript"):
        raise Refusal(400, "type must be audio, chat or transcript")
    tags = _AUDIO if kind == "audio" else _TEXT
    if str(data.get("languageTag", "")).lower() not in tags:
        raise Refusal(400, f"languageTag must be one of {', '.join(tags)}")
    if not data.get("vertical") and data.get("model") != "echo":
        raise Refusal(400, "vertical is required")
    if data.get("metadata") is not None:
        raise Refusal(400, "metadata needs a token with Explore enabled")
    if kind == "chat" and not _is_chat(data.get("chat")):
        raise Refusal(400, "chat with participants and messages is required")
    if kind == "transcript" and not isinstance(data.get("transcript"), dict):
        raise Refusal(400, "transcript is required")
    return data


def _is_chat(chat: Any) -> bool:
    messages = chat.get("messages") if isinstance(chat, dict) else None
    return isinstance(messages, list) and bool(messages) and all(isinstance(message, dict) for message in messages)


def _recognisable(facts: dict[str, Any]) -> str:
    for name in ("externalIdentifier", "downloadUri", "originalFilename"):
        if facts.get(name):
            return str(facts[name])
    if facts["type"] == "chat":
        return " ".join(str(message.get("content")) for message in facts["chat"]["messages"][:3])
    if facts["type"] == "transcript":
        return str(facts["transcript"].get("allParticipants", ""))
    return "an uploaded file"


class _Multipart(MultipartReader):
    """A multipart body with a boundary of any length: that of NICE's Java SDK has 77 digits, aiohttp stops at 70."""

    def _get_boundary(self) -> str:
        return self._mimetype.parameters["boundary"]


async def _file(request: web.Request) -> BodyPartReader:
    part = await _Multipart(request.headers, request.content).next()
    if not isinstance(part, BodyPartReader):
        raise Refusal(400, "The multipart body holds no file")
    return part


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
