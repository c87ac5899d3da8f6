"""RingCentral's AI API: a token from a JWT, six asynchronous operations, job status, webhooks, rate groups.

Facts: RingCentral's developer guide (AI, authentication, rate limits) and the definitions of its generated SDK.
"""

import base64
import math
import secrets
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web

from outwait.sandbox import credentials
from outwait.sandbox.behaviour import Call, Outcome, WebhookMode, WebhookShape
from outwait.sandbox.ledger import Job
from outwait.sandbox.limits import Limiter
from outwait.sandbox.ringcentral_params import InvalidParameter, check
from outwait.sandbox.ringcentral_results import result
from outwait.sandbox.vendor import Ask, Refusal, Vendor, answer, failed, retry_after, same_secret

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_WEEK = 7 * 86400.0
"""Seconds that a job id lives (documented)."""

_SHORTEST_LIFE = 600.0
"""The fewest seconds that a client may order for an access token (documented)."""

_OPERATIONS = {
    "speech-to-text": "/ai/audio/v1/async/speech-to-text",
    "speaker-diarize": "/ai/audio/v1/async/speaker-diarize",
    "speaker-identify": "/ai/audio/v1/async/speaker-identify",
    "punctuate": "/ai/text/v1/async/punctuate",
    "summarize": "/ai/text/v1/async/summarize",
    "analyze-interaction": "/ai/insights/v1/async/analyze-interaction",
}

_CODES = {
    400: "CAI-101",
    401: "OAU-213",
    403: "CMN-401",
    404: "CMN-120",
    405: "CMN-202",
    413: "CMN-104",
    429: "CMN-301",
}
"""Published error codes by status. The meanings of the other CAI codes are not published."""


class OAuthRefusal(Refusal):
    """An error answer of the token endpoint, which has its own form. `parameter` is OAuth's error code."""


class RingCentral(Vendor):
    """The AI API of RingCentral."""

    name = "ringcentral"
    root = credentials.RINGCENTRAL

    def reset(self) -> None:
        """Forget limits and access tokens."""
        options = self.state.options
        self._heavy = Limiter(options.heavy_limit, options.window, options.penalty, restarts=True)
        self._auth = Limiter(options.auth_limit, options.window, options.penalty, restarts=True)
        self._sessions: dict[str, float] = {}

    def routes(self) -> list[web.RouteDef]:
        """Token, revoke, six operations, job status."""
        return [
            web.post(f"{self.root}/restapi/oauth/token", self.token),
            web.post(f"{self.root}/restapi/oauth/revoke", self.revoke),
            web.get(f"{self.root}/ai/status/v1/jobs/{{id}}", self.status),
            *(web.post(self.root + path, partial(self.operate, name)) for name, path in _OPERATIONS.items()),
        ]

    def limiter(self, call: Call) -> Limiter:
        """Group Auth for tokens, Heavy for all else: submits and polls share one counter."""
        return self._auth if call in (Call.TOKEN, Call.OTHER) else self._heavy

    def authorise(self, ask: Ask) -> None:
        """Client id and secret for tokens, an access token for all else."""
        if ask.call in (Call.TOKEN, Call.OTHER):
            self._check_client(ask.request)
            return
        scheme, _, token = ask.request.headers.get("Authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else ask.request.query.get("access_token", "")
        expires = self._sessions.get(token)
        if expires is None:
            raise Refusal(401, "Token not found", code="OAU-213")
        if expires <= time.time():
            raise Refusal(401, "Access token has expired", code="OAU-128")

    def refuse(self, refusal: Refusal) -> web.Response:
        """`{errorCode, message, errors: […]}`; for tokens also `error` and `error_description`."""
        code = refusal.code or _CODES.get(refusal.status, "CMN-201")
        headers = retry_after(refusal)
        if isinstance(refusal, OAuthRefusal):
            body = {"error": refusal.parameter, "error_description": refusal.message}
            errors = [{"errorCode": code, "message": refusal.message}]
            return answer({**body, "errors": errors}, refusal.status, headers)
        error = {"errorCode": code, "message": refusal.message}
        detail = {**error, "parameterName": refusal.parameter} if refusal.parameter else error
        return answer({**error, "errors": [detail]}, refusal.status, headers)

    def finish(self, ask: Ask, answer: web.Response) -> None:
        """The rate headers."""
        limiter, now = self.limiter(ask.call), time.time()
        group = "heavy" if limiter is self._heavy else "auth"
        answer.headers["X-Rate-Limit-Group"] = group
        answer.headers["X-Rate-Limit-Limit"] = str(limiter.limit)
        answer.headers["X-Rate-Limit-Remaining"] = "0" if limiter.penal(now) else str(limiter.remaining(now))
        answer.headers["X-Rate-Limit-Window"] = str(math.ceil(limiter.window))

    async def token(self, request: web.Request) -> web.Response:
        """POST /restapi/oauth/token."""
        return await self.handle(Ask(request, Call.TOKEN), self._token)

    async def revoke(self, request: web.Request) -> web.Response:
        """POST /restapi/oauth/revoke."""
        return await self.handle(Ask(request, Call.OTHER), self._revoke)

    async def operate(self, operation: str, request: web.Request) -> web.Response:
        """POST one of the six operations."""
        return await self.submit(request, partial(self._operate, operation))

    async def status(self, request: web.Request) -> web.Response:
        """GET /ai/status/v1/jobs/{jobId}."""
        return await self.about(request, Call.POLL, request.match_info["id"], self._status)

    async def _token(self, ask: Ask) -> web.Response:
        form = await ask.request.post()
        if form.get("grant_type") != _GRANT:
            raise OAuthRefusal(400, "Unsupported grant type", code="OAU-250", parameter="unsupported_grant_type")
        if form.get("assertion") != credentials.JWT:
            raise OAuthRefusal(400, "Invalid assertion", code="OAU-210", parameter="invalid_grant")
        token, life = secrets.token_urlsafe(32), self._life(form.get("access_token_ttl"))
        while len(self._sessions) >= self.state.options.sessions:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[token] = time.time() + life
        return answer(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": math.ceil(life),
                "scope": "AI",
                "owner_id": "1",
                "endpoint_id": "sandbox",
            }
        )

    def _life(self, ordered: object) -> float:
        """Seconds that a token is valid: those that the client orders, but never more than the sandbox's option."""
        life = self.state.options.token_ttl
        if isinstance(ordered, str) and ordered.isascii() and ordered.isdecimal():
            return min(max(float(ordered), _SHORTEST_LIFE), life)
        return life

    async def _revoke(self, ask: Ask) -> web.Response:
        form = await ask.request.post()
        self._sessions.pop(str(form.get("token", "")), None)
        return web.Response()

    async def _operate(self, operation: str, ask: Ask) -> web.Response:
        try:
            text, facts = check(operation, ask.data)
        except InvalidParameter as error:
            raise Refusal(400, str(error), parameter=error.parameter) from error
        job = self.accept(ask, operation, text)
        job.facts = facts
        job.webhook = ask.request.query.get("webhook")
        self.begin(job, at_once=job.webhook is not None and job.behaviour.webhook is WebhookMode.EARLY)
        if job.behaviour.outcome not in (Outcome.NEVER, Outcome.UNKNOWN):
            await self.state.webhooks.schedule(job, partial(self._webhook_document, job))
        return answer({"jobId": job.id}, 202)

    async def _status(self, ask: Ask) -> web.Response:
        job, now = self.job_of(ask, _WEEK), time.time()
        return answer(_document(job, now))

    def job_of(self, ask: Ask, life: float | None) -> Job:
        """The job of a request. Raises Refusal as the guide's table of error codes has it for an unknown id."""
        try:
            return super().job_of(ask, life)
        except Refusal as refusal:
            message = "Resource for parameter [jobId] is not found"
            raise Refusal(refusal.status, message, code="CMN-102", parameter="jobId") from refusal

    def _webhook_document(self, job: Job) -> dict[str, Any]:
        document = _document(job, job.ready)
        if job.behaviour.webhook_shape is WebhookShape.BARE:
            return {name: document[name] for name in ("status", "response")}
        return document

    def _check_client(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        try:
            client = base64.b64decode(given, validate=True).decode() if scheme.lower() == "basic" else ""
        except ValueError:  # not base64, or no text in it
            client = ""
        if not same_secret(client, f"{credentials.CLIENT_ID}:{credentials.CLIENT_SECRET}"):
            raise OAuthRefusal(401, "Invalid client credentials", code="OAU-123", parameter="invalid_client")


def _document(job: Job, now: float) -> dict[str, Any]:
    life = _WEEK if job.behaviour.expiry is None else job.behaviour.expiry
    document: dict[str, Any] = {
        "jobId": job.id,
        "api": _OPERATIONS[job.operation],
        "creationTime": _when(job.submitted),
        "expirationTime": _when(job.submitted + life),
        "status": job.behaviour.word or "InProgress",
    }
    if not job.is_over(now):
        return document
    if job.behaviour.outcome is Outcome.UNKNOWN:
        return {**document, "status": job.behaviour.word or "Suspended"}
    ended = {**document, "completionTime": _when(job.ready)}
    if failed(job):
        message = (
            "Media cannot be fetched" if job.behaviour.outcome is Outcome.DOWNLOAD_FAILURE else "Processing failed"
        )
        errors = [{"errorCode": "CAI-101", "message": f"{message}: {job.text}"}]
        return {**ended, "status": "Fail", "response": {"errors": errors}}
    return {**ended, "status": "Success", "response": result(job)}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
