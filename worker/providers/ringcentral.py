"""RingCentral's AI API: six asynchronous operations, one job status, a webhook, and one small rate limit for all.

Facts: RingCentral's developer guide (AI, authentication, rate limits, errors) and the definitions of its generated
SDK. docs/providers.md lists where they disagree, and our decisions.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast
from urllib.parse import quote, urlencode

import httpx
from pydantic import Field

from outwait.config.groups import BaseUrl
from outwait.worker.model import json_text
from outwait.worker.model.errors import RateLimited, Unreadable
from outwait.worker.net.redaction import redact_all
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
    Waiting,
    WebhookAnswer,
)
from outwait.worker.providers.exchange import (
    Count,
    Exchange,
    check,
    error_text,
    external_id,
    header_seconds,
    json_object,
    retry_after,
    seconds_until,
)
from outwait.worker.providers.oauth import AccessToken
from outwait.worker.providers.ringcentral_params import Analyze, Diarize, Identify, Punctuate, SpeechToText, Summarize

PENALTY = 60.0
"""Seconds of the penalty for exceeding a limit; any request during the penalty restarts it (guide, rate limits)."""

MINIMUM_WAIT = 30.0
"""Minimum seconds to wait after a 429 that names no time (the same page)."""

_DAY = 86400.0

_WEBHOOK_MEMO = "webhook"
"""Memo of a job for which a webhook is expected, so that it is polled only rarely."""

_PATHS = {
    "speech-to-text": "/ai/audio/v1/async/speech-to-text",
    "speaker-diarize": "/ai/audio/v1/async/speaker-diarize",
    "speaker-identify": "/ai/audio/v1/async/speaker-identify",
    "punctuate": "/ai/text/v1/async/punctuate",
    "summarize": "/ai/text/v1/async/summarize",
    "analyze-interaction": "/ai/insights/v1/async/analyze-interaction",
}


class RingCentralSettings(ProviderSettings):
    """`OUTWAIT_PROVIDERS__RINGCENTRAL__…`."""

    base_url: BaseUrl = "https://platform.ringcentral.com"
    client_id: Credential = Field(description="Client id of the app.")
    client_secret: Credential = Field(description="Client secret of the app.")
    jwt: Credential = Field(description="JWT of the user whose media are analysed.")
    # Submits and status polls share one rate group, Heavy: ten a minute for each user and app, unless it was raised.
    rate_limit: int | None = Field(default=10, ge=1, description="Requests that may start in one rate_window.")
    safety_poll_every: float = Field(
        default=300, gt=0, description="Seconds between polls of a job whose end a webhook will tell."
    )


def _operation(name: str, params: type[Any], first_poll: float) -> Operation:
    # No interval is published. A job takes seconds to minutes, under load mostly five to ten minutes, thirty at worst.
    # The long deadline is for the queue before ten requests a minute. A jobId lives a week (guide); each answer to a
    # poll says exactly how long (`expirationTime`).
    return Operation(name, params, poll_every=30, first_poll=first_poll, deadline=_DAY, expiry=7 * _DAY)


class RingCentral(Provider):
    """The AI API of RingCentral."""

    name = "ringcentral"
    settings_model = RingCentralSettings
    refused = frozenset({503})
    webhooks = True
    operations: ClassVar[Mapping[str, Operation]] = {
        "speech-to-text": _operation("speech-to-text", SpeechToText, 30),
        "speaker-diarize": _operation("speaker-diarize", Diarize, 30),
        "speaker-identify": _operation("speaker-identify", Identify, 30),
        "punctuate": _operation("punctuate", Punctuate, 10),
        "summarize": _operation("summarize", Summarize, 10),
        "analyze-interaction": _operation("analyze-interaction", Analyze, 30),
    }

    def __init__(self, settings: RingCentralSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._token = AccessToken(_token_name(settings), self._token_request)
        self._headers = "", httpx.Headers()  # of the token in use

    async def prepare(self, exchange: Exchange) -> None:
        """Get an access token."""
        await self._token.get(exchange)

    async def submit(self, job: Submission, exchange: Exchange) -> SubmitAnswer:
        """POST the operation. A webhook URL is passed on in the query."""
        path = _PATHS[job.operation]
        if job.webhook_url:
            path += "?webhook=" + quote(job.webhook_url, safe="")
        content = job.params.model_dump_json(exclude_none=True).encode()
        response = await self._send("POST", path, Count.SUBMITS, exchange, content)
        if job.webhook_url and response.status_code == 202 and not response.content.strip():
            return SubmitAnswer("", _WEBHOOK_MEMO)  # the API of 2022 says nothing here: its webhook is all that follows
        answer = json_object(response)
        job_id = external_id(answer.get("jobId"))
        if job_id is None:
            raise Unreadable("the job was accepted without a jobId", detail=sorted(answer))
        if job.webhook_url:
            return SubmitAnswer(job_id, _WEBHOOK_MEMO, self._settings.safety_poll_every)
        return SubmitAnswer(job_id)

    async def poll(self, job: Waiting, exchange: Exchange) -> PollAnswer:
        """GET the job's status, which holds the result too."""
        path = "/ai/status/v1/jobs/" + quote(job.external_id, safe="")
        response = await self._send("GET", path, Count.POLLS, exchange)
        document = json_object(response)
        answer = _read(document, retry_after(response))
        if not isinstance(answer, Pending):
            return answer
        safety = self._settings.safety_poll_every if job.memo == _WEBHOOK_MEMO else None
        return replace(answer, safety=safety, expires_in=seconds_until(response, document.get("expirationTime")))

    def read_webhook(self, body: bytes) -> WebhookAnswer:
        """The job's status as it is posted: with its envelope, or (older samples) only `status` and `response`."""
        try:
            document, warning = json_text.parsed(body)
        except ValueError as error:
            raise Unreadable("the webhook's body is not JSON") from error
        if not isinstance(document, dict):
            raise Unreadable("the webhook's body is not a JSON object")
        answer = _read(document, None)
        if isinstance(answer, Succeeded) and warning:
            answer = replace(answer, warning=warning)
        return WebhookAnswer(external_id(document.get("jobId")), answer)

    def recognises(self, body: Any) -> bool:
        """A job's status, or an error with RingCentral's `errorCode` (guide, errors)."""
        if not isinstance(body, dict):
            return False
        errors = body.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else body
        return isinstance(first.get("errorCode"), str) or {"jobId", "status"} <= body.keys()

    async def _send(
        self, method: str, path: str, count: Count, exchange: Exchange, content: bytes | None = None
    ) -> httpx.Response:
        """Send with the token. After a 401, which means that nothing was processed, send once more with a new token."""
        token = await self._token.get(exchange)
        response = await exchange.send(self._request(method, path, token, content), count)
        if response.status_code == 401:
            newer = await self._token.replace(exchange, token)
            if newer is not None:
                response = await exchange.send(self._request(method, path, newer, content), count)
        _pause_if_exhausted(response, exchange)
        try:
            return check(response, submit=count is Count.SUBMITS)
        except RateLimited as error:
            if error.retry_after is None:
                error.retry_after = max(MINIMUM_WAIT, _window(response))
            raise

    def _request(self, method: str, path: str, token: str, content: bytes | None) -> httpx.Request:
        if self._headers[0] != token:
            fields = {"accept": "application/json", "content-type": "application/json"}
            self._headers = token, httpx.Headers({**fields, "authorization": f"Bearer {token}"})
        return self.request(method, path, headers=self._headers[1], content=content)

    def _token_request(self) -> httpx.Request:
        client = f"{self._settings.client_id.get_secret_value()}:{self._settings.client_secret.get_secret_value()}"
        # The JWT grant is used again, not a refresh token: using one would end the access token of the other workers.
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": self._settings.jwt.get_secret_value(),
        }
        headers = {
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
            "authorization": "Basic " + base64.b64encode(client.encode()).decode(),
        }
        return self.request("POST", "/restapi/oauth/token", headers=headers, content=urlencode(form).encode())


def _token_name(settings: RingCentralSettings) -> str:
    """The token's name in the store. Different credentials have different names."""
    parts = (
        settings.base_url,
        *(s.get_secret_value() for s in (settings.client_id, settings.client_secret, settings.jwt)),
    )
    return "ringcentral-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _pause_if_exhausted(response: httpx.Response, exchange: Exchange) -> None:
    """Pause until the end of the rate window if its last request is used. The header may be missing."""
    if response.headers.get("x-rate-limit-remaining") == "0":
        exchange.pause = max(exchange.pause or 0.0, _window(response))


def _window(response: httpx.Response) -> float:
    """Length of the rate window, and so of its penalty, in seconds."""
    window = header_seconds(response, "x-rate-limit-window")
    return PENALTY if window is None else max(window, 1.0)


def _read(document: dict[str, Any], wait: float | None) -> PollAnswer:
    status = str(document.get("status"))
    match status.lower():
        case "inprogress":
            return Pending(status, wait)
        case "success":
            # The same for a poll and a webhook: some webhooks contain nothing else.
            response = document.get("response")
            return Succeeded(response, status, "the answer holds no response" if response is None else "")
        case "fail":
            return _failed(status, document.get("response"))
        case _:
            return Pending(status[:60], wait, f"unknown status {status[:60]!r}")


def _failed(status: str, response: Any) -> Failed:
    body = cast("dict[str, Any]", response) if isinstance(response, dict) else {}
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code = first.get("errorCode")
    message = error_text({"message": first.get("message")}) or "the provider gave no reason"
    return Failed(status, code if isinstance(code, str) and code else status, message, redact_all(response))
