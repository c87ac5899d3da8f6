"""Asks each provider for a job that does not exist, which costs nothing: does it answer as this provider does?

A wrong address and refused credentials show. What only a submit needs, this cannot show.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal
from uuid import uuid4

import httpx

from outwait.config.settings import Settings
from outwait.worker.model.errors import (
    ExternalIdUnknown,
    NotSent,
    ProviderError,
    ProviderNotConfigured,
    RateLimited,
    Unauthorized,
)
from outwait.worker.providers.contract import Provider, Waiting
from outwait.worker.providers.exchange import Exchange, Sender, decoded
from outwait.worker.providers.registry import Registry, build
from outwait.worker.store.health import Finding

ANSWER_WITHIN = 10.0
"""Seconds within which a provider must answer."""


async def check_providers(settings: Settings) -> list[Finding]:
    """What each configured provider answers."""
    from outwait.worker.net.http import Http  # aiohttp takes long to import

    registry = build(settings.providers)
    incomplete = [_incomplete(registry, name) for name in settings.providers if name not in registry.providers]
    if not registry.providers and not incomplete:
        return [Finding("warning", "providers", "no provider is configured", "docs/providers.md lists the settings.")]
    http = Http(body_max=settings.store.result_max, proxy=settings.outbound.proxy)
    try:
        return [*incomplete, *await asyncio.gather(*(_check(one, http) for one in registry.providers.values()))]
    finally:
        await http.close()


def _incomplete(registry: Registry, name: str) -> Finding:
    try:
        registry.get(name)
    except ProviderNotConfigured as error:
        return Finding("error", f"provider {name}", str(error), "docs/providers.md lists the settings.")
    return Finding("ok", f"provider {name}", "is configured")


async def _check(provider: Provider, http: Sender) -> Finding:
    sender = _LastAnswer(http)
    exchange = Exchange(sender, _PrivateToken(), ANSWER_WITHIN)
    try:
        await provider.prepare(exchange)
        await provider.poll(_nonexistent(provider), exchange)
    except ProviderError as error:
        return judged(provider, sender.answer, error)
    return judged(provider, sender.answer, None)


def judged(provider: Provider, answer: httpx.Response | None, error: ProviderError | None) -> Finding:
    """What the last answer says about the address and the credentials.

    Args:
        provider: the one that was asked.
        answer: None: none came.
        error: what it was taken for.
    """
    settings = f"OUTWAIT_PROVIDERS__{provider.name.upper()}__"
    address = f"Check the network and {settings}BASE_URL."
    credentials = f"Check the credentials in the settings {settings}…"
    level: Literal["ok", "warning", "error"] = "warning"
    message, advice = str(error), ""
    status = answer.status_code if answer is not None else None
    if answer is None or status is None:
        level, advice = "error" if isinstance(error, NotSent) else "warning", address
    elif status in (401, 403):
        level, advice = "error", credentials
    elif isinstance(error, RateLimited):
        advice = "No action is needed: the jobs wait and go on later."
    elif status >= 500:
        advice = "Try again later."
    elif status == 404 and not answer.content:
        message, advice = "answers 404 without a body, as any web server may", address
    elif not provider.recognises(decoded(answer)):
        said = f"{answer.request.method} {answer.request.url.path} answered {status} with {_kind(answer)}"
        message = f"answers, but not as {type(provider).__name__} does: {said}"
        level, advice = "error", f"Another server seems to be at this address. {address}"
    elif isinstance(error, Unauthorized):
        level, advice = "error", credentials
    elif error is None or isinstance(error, ExternalIdUnknown):
        level, message = "ok", "answers as it documents, and accepts the credentials"
    else:
        advice = "The provider answers, but not as it documents. Try again later."
    return Finding(level, f"provider {provider.name}", message, advice)


def _kind(answer: httpx.Response) -> str:
    body = decoded(answer)
    if isinstance(body, dict):
        return "JSON of another form"
    return "JSON that is no object" if body is not None else answer.headers.get("content-type", "no content type")[:60]


def _nonexistent(provider: Provider) -> Waiting:
    async def no_params() -> Mapping[str, object]:
        return {}

    operation = next(iter(provider.operations))
    return Waiting(job_id="doctor", operation=operation, external_id=str(uuid4()), memo="", age=0, params=no_params)


class _LastAnswer:
    """Sends, and keeps the last answer."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.answer: httpx.Response | None = None

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        self.answer = None
        self.answer = await self._sender.send(request, timeout=timeout, fresh=fresh)
        return self.answer

    def stream(self, request: httpx.Request, *, timeout: float) -> AbstractAsyncContextManager[httpx.Response]:
        return self._sender.stream(request, timeout=timeout)


class _PrivateToken:
    """A token store for this check only, so that the credentials are used and no token of the workers."""

    def __init__(self) -> None:
        self._token: tuple[str, float] | None = None

    async def token(self, name: str) -> tuple[str, float] | None:  # noqa: ARG002 - it serves one provider only
        return self._token

    async def put_token(self, name: str, token: str, *, ttl_s: float) -> None:  # noqa: ARG002
        self._token = token, ttl_s

    async def drop_token(self, name: str, token: str) -> None:  # noqa: ARG002
        self._token = None

    async def lock_token(self, name: str, *, ttl_s: float) -> bool:  # noqa: ARG002
        return True

    async def unlock_token(self, name: str) -> None:
        pass
