"""Unless: ask a question, and poll for the answer.

Facts: Unless's documentation. Error bodies and the status of an accepted question are not documented. The sandbox uses
what an API gateway usually answers.
"""

import time
from typing import Any

from aiohttp import web

from outwait.sandbox import credentials
from outwait.sandbox.behaviour import Call, Outcome
from outwait.sandbox.ledger import Job
from outwait.sandbox.limits import Limiter
from outwait.sandbox.results import unless as result
from outwait.sandbox.vendor import Ask, Refusal, Vendor, answer, failed, retry_after, same_secret

_QUEUED = 0.3
"""Share of a question's time in which it is PENDING."""

_ACCOUNT = {
    "x-user-email": credentials.USER_EMAIL,
    "x-account-id": credentials.ACCOUNT_ID,
    "x-website-id": credentials.WEBSITE_ID,
}
_CORS = {"Access-Control-Allow-Origin": "*"}


class Unless(Vendor):
    """The asynchronous query API of Unless."""

    name = "unless"
    root = credentials.UNLESS

    def reset(self) -> None:
        """Forget the limit."""
        options = self.state.options
        self._limiter = Limiter(options.unless_limit, options.window, options.penalty)

    def routes(self) -> list[web.RouteDef]:
        """Query and answer."""
        paths = {name: f"{self.root}/ai/async/{name}" for name in ("query", "answer")}
        return [
            web.post(paths["query"], self.query),
            web.get(paths["answer"], self.answer),
            *(web.options(path, _preflight) for path in paths.values()),
        ]

    def limiter(self, call: Call) -> Limiter:  # noqa: ARG002 - one limit for all
        """One counter for everything."""
        return self._limiter

    def authorise(self, ask: Ask) -> None:
        """Check the key and the account headers. A question needs them; for an answer they are optional."""
        headers = ask.request.headers
        if not same_secret(headers.get("x-api-key", ""), credentials.API_KEY):
            raise Refusal(403, "Forbidden")
        for name, value in _ACCOUNT.items():
            given = headers.get(name)
            if given is None and ask.call is Call.SUBMIT:
                raise Refusal(400, f"Missing required header: {name}")
            if given is not None and given != value:
                raise Refusal(403, "Forbidden")

    def refuse(self, refusal: Refusal) -> web.Response:
        """`{message}`, which a page may read too."""
        return answer({"message": refusal.message}, refusal.status, {**_CORS, **retry_after(refusal)})

    def finish(self, ask: Ask, answer: web.Response) -> None:  # noqa: ARG002 - the same for every request
        """The one documented response header."""
        answer.headers.update(_CORS)

    async def query(self, request: web.Request) -> web.Response:
        """POST /ai/async/query."""
        return await self.submit(request, self._query)

    async def answer(self, request: web.Request) -> web.Response:
        """GET /ai/async/answer?questionId=…"""
        return await self.about(request, Call.POLL, request.query.get("questionId", ""), self._answer)

    async def _query(self, ask: Ask) -> web.Response:
        data = ask.data
        if not isinstance(data, dict):
            raise Refusal(400, "Invalid request body")
        for name in ("query", "sessionId", "visitorId"):
            if not (isinstance(data.get(name), str) and data[name]):
                raise Refusal(400, f"Missing required field: {name}")
        job = self.accept(ask, "query", data["query"])
        kept = {name: str(data[name])[:200] for name in ("sessionId", "conversationName") if data.get(name)}
        job.facts = {**kept, "metadata": _small(data.get("metadata"))}
        self.begin(job)
        return answer({"questionId": job.id}, 202)

    async def _answer(self, ask: Ask) -> web.Response:
        if not ask.request.query.get("questionId"):
            raise Refusal(400, "Missing required parameter: questionId")
        job, now = self.job_of(ask, None), time.time()
        return answer({"questionId": job.id, **_state(job, now)})


async def _preflight(_: web.Request) -> web.Response:
    """A browser asks this before a page's request with these headers; without it the documented header is of no use."""
    headers = {"Access-Control-Allow-Methods": "GET, POST, OPTIONS", "Access-Control-Max-Age": "600"}
    allowed = ", ".join(("content-type", "x-api-key", *_ACCOUNT))
    return web.Response(status=204, headers={**_CORS, **headers, "Access-Control-Allow-Headers": allowed})


def _state(job: Job, now: float) -> dict[str, Any]:
    share, behaviour = job.share(now), job.behaviour
    if share < 1:
        return {"status": behaviour.word or ("PENDING" if share < _QUEUED else "PROCESSING")}
    if behaviour.outcome is Outcome.UNKNOWN:
        return {"status": behaviour.word or "SUSPENDED"}
    if failed(job):
        return {"status": "ERROR", "error": f"Timeout processing query: {job.text}"}
    return {"status": "DONE", "chatData": result(job)}


def _small(metadata: object) -> object:
    """The metadata that an answer repeats; empty if it is too large to keep in memory."""
    return metadata if len(repr(metadata)) <= 1000 else {}
