"""Unless: ask a question, and ask for the answer.

Facts: docs.unless.com, the REST reference of `/ai/async/query` and `/ai/async/answer`. Pacing, limits, retention and
error bodies are not documented there; docs/providers.md explains our decisions.
"""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
from pydantic import Field, JsonValue

from outwait.config.groups import BaseUrl
from outwait.worker.model.errors import Unreadable
from outwait.worker.providers.contract import (
    Credential,
    Failed,
    HeaderText,
    Operation,
    Params,
    Pending,
    PollAnswer,
    Provider,
    ProviderSettings,
    Submission,
    SubmitAnswer,
    Succeeded,
    Waiting,
)
from outwait.worker.providers.exchange import Count, Exchange, check, external_id, json_object, retry_after


class UnlessSettings(ProviderSettings):
    """`OUTWAIT_PROVIDERS__UNLESS__…`."""

    # One of the vendor's pages names the host api.unless.com in its title; every example calls this one.
    base_url: BaseUrl = "https://rest-endpoint.unless.com/api/v1"
    api_key: Credential = Field(description="Sent as x-api-key.")
    user_email: HeaderText = Field(description="Sent as x-user-email.")
    account_id: HeaderText = Field(description="Sent as x-account-id.")
    website_id: HeaderText = Field(description="Sent as x-website-id.")


class Query(Params):
    """A question. Names and requirements as in the vendor's reference."""

    query: str = Field(min_length=1, description="The question.")
    sessionId: str = Field(min_length=1)
    visitorId: str = Field(min_length=1)
    segmentId: str | None = None
    audienceId: str | None = None
    conversationName: str | None = None
    metadata: dict[str, JsonValue] | None = None


class Unless(Provider):
    """The asynchronous query API of Unless."""

    name = "unless"
    settings_model = UnlessSettings
    operations: ClassVar[Mapping[str, Operation]] = {
        # No times are published. A language model answers in seconds; after ten minutes no answer can be expected.
        "query": Operation("query", Query, poll_every=2, first_poll=2, deadline=600),
    }

    def __init__(self, settings: UnlessSettings) -> None:
        super().__init__(settings)
        # One copy of the reference asks for all four headers on both calls, another only for the key on the answer.
        self._headers = httpx.Headers(
            {
                "accept": "application/json",
                "content-type": "application/json",
                "x-api-key": settings.api_key.get_secret_value(),
                "x-user-email": settings.user_email,
                "x-account-id": settings.account_id,
                "x-website-id": settings.website_id,
            }
        )

    async def submit(self, job: Submission, exchange: Exchange) -> SubmitAnswer:
        """POST /ai/async/query."""
        content = job.params.model_dump_json(exclude_none=True).encode()
        request = self.request("POST", "/ai/async/query", headers=self._headers, content=content)
        answer = json_object(check(await exchange.send(request, Count.SUBMITS), submit=True))
        question = external_id(answer.get("questionId"))
        if question is None:
            raise Unreadable("the question was accepted without a questionId", detail=sorted(answer))
        return SubmitAnswer(question)

    async def poll(self, job: Waiting, exchange: Exchange) -> PollAnswer:
        """GET /ai/async/answer."""
        path = "/ai/async/answer?questionId=" + quote(job.external_id, safe="")
        response = check(await exchange.send(self.request("GET", path, headers=self._headers), Count.POLLS))
        return _read(json_object(response), retry_after(response))


def _read(document: dict[str, Any], wait: float | None) -> PollAnswer:
    status = str(document.get("status"))
    match status.upper():
        case "PENDING" | "PROCESSING":
            return Pending(status, wait)
        case "DONE":
            chat = document.get("chatData")
            return Succeeded({"answer": _last_answer(chat), "chatData": chat}, status)
        case "ERROR":
            error = document.get("error")
            message = error if isinstance(error, str) and error else "the provider gave no reason"
            return Failed(status, "ERROR", message[:500])
        case _:
            return Pending(status[:60], wait, f"unknown status {status[:60]!r}")


def _last_answer(chat: Any) -> str | None:
    """The answer. It has no field of its own: it is the last message whose sender is the bot."""
    history = chat.get("history") if isinstance(chat, dict) else None
    for entry in reversed(history if isinstance(history, list) else []):
        if isinstance(entry, dict) and entry.get("sender") == "bot" and isinstance(entry.get("message"), str):
            return str(entry["message"])
    return None
