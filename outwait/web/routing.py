"""How the API's routes check a request: first the API key, then the content type, then strict JSON."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import HTTPException, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import from_json

from outwait.web.auth import authenticate
from outwait.worker.model.jobs import JOB_ID_PATTERN
from outwait.worker.providers.registry import PROVIDERS


def _provider(name: str) -> str:
    if name not in PROVIDERS:
        raise ValueError(f"there is no such provider; the providers are {', '.join(PROVIDERS)}")
    return name


ProviderName = Annotated[str, AfterValidator(_provider), WithJsonSchema({"type": "string", "enum": list(PROVIDERS)})]
"""The name of a provider that exists."""

JobId = Annotated[str, Path(pattern=JOB_ID_PATTERN, description="The job's id.")]


class ApiRoute(APIRoute):
    """A route that authenticates the caller before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with these checks before it."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            request = _StrictJson(request.scope, request.receive)
            await authenticate(request)
            if takes_body:
                _only_json(request)
            return await handle(request)

        return checked


class _StrictJson(Request):
    async def json(self) -> Any:
        """The body. Deep nesting, lone surrogates and NaN are refused, although Python's parser accepts them."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


def _only_json(request: Request) -> None:
    sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent and media_type != "application/json":
        given = f"{media_type[:80]!r}" if media_type else "no Content-Type"
        raise HTTPException(415, f"send JSON with Content-Type: application/json; this request has {given}")
