"""RingCentral's AI API: six asynchronous operations, one job status, a webhook, and one small rate limit for all.

Facts: RingCentral's developer guide (AI, authentication, rate limits, errors) and the definitions of its generated
SDK; docs/providers.md tells where they disagree and what was decided.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast
from urllib.parse import quote, urlencode

import httpx
import msgspec
from pydantic import Field

from outwait.config.groups import BaseUrl
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
from outwait.worker.providers.exchange import Count, Exchange, check, error_text, json_object, retry_after
from outwait.worker.providers.oauth import AccessToken
from outwait.worker.providers.ringcentral_params import Analyze, Diarize, Identify, Punctuate, SpeechToText, Summarize

PENALTY = 60.0
"""Seconds of silence that exceeding a limit costs; any request inside them starts them anew (guide, rate limits)."""

LEAST_SILENCE = 30.0
"""Seconds to wait after a 429 that names none, at the very least (the same page)."""

_DAY = 86400.0

_WEBHOOK_MEMO = "webhook"
"""Memo of a job that a webhook was asked for: polling is its safety net only."""

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
    # Submits and status polls are one rate group, Heavy: ten a minute for a user and app unless raised for the app.
    rate_limit: int | None = Field(default=10, ge=1, description="Requests that may start in one rate_window.")
    safety_poll_every: float = Field(
        default=300, gt=0, description="Seconds between polls of a job whose end a webhook will tell."
    )


def _operation(name: str, params: type[Any], first_poll: float) -> Operation:
    # No interval is published. A job takes seconds to minutes, mostly five to ten under load, thirty at worst; the
    # deadline is for the queue in front of ten requests a minute. A jobId lives a week (guide, `expirationTime`).
    return Operation(name, params, poll_every=30, first_poll=first_poll, deadline=_DAY, expiry=7 * _DAY)


class RingCentral(Provider):
    """The AI API of RingCentral."""

    name = "ringcentral"
    settings_model = RingCentralSettings
    refused = frozenset({429, 503})
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
        self._own = settings
        self._token = AccessToken(_token_name(settings), self._token_request)
        self._headers = "", httpx.Headers()  # of the token in use

    async def prepare(self, exchange: Exchange) -> None:
        """Have an access token."""
        await self._token.get(exchange)

    async def submit(self, job: Submission, exchange: Exchange) -> SubmitAnswer:
        """POST the operation. A webhook URL is passed on in the query."""
        path = _PATHS[job.operation]
        if job.webhook_url:
            path += "?webhook=" + quote(job.webhook_url, safe="")
        content = job.params.model_dump_json(exclude_none=True).encode()
        answer = json_object(await self._send("POST", path, Count.SUBMITS, exchange, content))
        job_id = answer.get("jobId")
        if not (isinstance(job_id, str) and job_id):
            raise Unreadable("the job was accepted without a jobId", detail=sorted(answer))
        if job.webhook_url:
            return SubmitAnswer(job_id, _WEBHOOK_MEMO, self._own.safety_poll_every)
        return SubmitAnswer(job_id)

    async def poll(self, job: Waiting, exchange: Exchange) -> PollAnswer:
        """GET the job's status, which holds the result too."""
        path = "/ai/status/v1/jobs/" + quote(job.external_id, safe="")
        response = await self._send("GET", path, Count.POLLS, exchange)
        answer = _read(json_object(response), retry_after(response))
        if isinstance(answer, Pending) and job.memo == _WEBHOOK_MEMO:
            return replace(answer, safety=self._own.safety_poll_every)
        return answer

    def read_webhook(self, body: bytes) -> WebhookAnswer:
        """The job's status as it is posted: with its envelope, or (older samples) only `status` and `response`."""
        try:
            document = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreadable("the webhook's body is no JSON object") from error
        job_id = document.get("jobId")
        return WebhookAnswer(job_id if isinstance(job_id, str) and job_id else None, _read(document, None))

    async def _send(
        self, method: str, path: str, count: Count, exchange: Exchange, content: bytes | None = None
    ) -> httpx.Response:
        """Send with the token; after a 401, which says that nothing was processed, once more with a new one."""
        token = await self._token.get(exchange)
        response = await exchange.send(self._request(method, path, token, content), count)
        if response.status_code == 401:
            newer = await self._token.replace(exchange, token)
            if newer is not None:
                response = await exchange.send(self._request(method, path, newer, content), count)
        _heed(response, exchange)
        try:
            return check(response, submit=count is Count.SUBMITS)
        except RateLimited as error:
            if error.retry_after is None:
                error.retry_after = max(LEAST_SILENCE, _window(response))
            raise

    def _request(self, method: str, path: str, token: str, content: bytes | None) -> httpx.Request:
        if self._headers[0] != token:
            fields = {"accept": "application/json", "content-type": "application/json"}
            self._headers = token, httpx.Headers({**fields, "authorization": f"Bearer {token}"})
        return self.request(method, path, headers=self._headers[1], content=content)

    def _token_request(self) -> httpx.Request:
        client = f"{self._own.client_id.get_secret_value()}:{self._own.client_secret.get_secret_value()}"
        # The JWT grant is repeated, and no refresh token used: using one ends the access token that others still have.
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": self._own.jwt.get_secret_value(),
        }
        headers = {
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
            "authorization": "Basic " + base64.b64encode(client.encode()).decode(),
        }
        return self.request("POST", "/restapi/oauth/token", headers=headers, content=urlencode(form).encode())


def _token_name(settings: RingCentralSettings) -> str:
    """Other credentials never meet a token of these."""
    parts = (
        settings.base_url,
        *(s.get_secret_value() for s in (settings.client_id, settings.client_secret, settings.jwt)),
    )
    return "ringcentral-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _heed(response: httpx.Response, exchange: Exchange) -> None:
    """The last request of the window is spent: nothing more until it is over. The header may be missing."""
    if response.headers.get("x-rate-limit-remaining") == "0":
        exchange.pause = max(exchange.pause or 0.0, _window(response))


def _window(response: httpx.Response) -> float:
    """Seconds that the vendor's rate window, and so its penalty, lasts."""
    try:
        return max(float(response.headers.get("x-rate-limit-window", PENALTY)), 1.0)
    except ValueError:
        return PENALTY


def _read(document: dict[str, Any], wait: float | None) -> PollAnswer:
    status = str(document.get("status"))
    match status.lower():
        case "inprogress":
            return Pending(status, wait)
        case "success":
            # The same whether polled or posted: some webhooks carry nothing but it.
            return Succeeded(document.get("response"), status)
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
