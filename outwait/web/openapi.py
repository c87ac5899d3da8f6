"""The OpenAPI 3.1 document: FastAPI's document, with the types of the answers added."""

from inspect import cleandoc
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from outwait.web.answers import REF, TYPES

TAGS = [
    {"name": "jobs", "description": "Enqueue jobs, read them, wait for them, cancel them."},
    {"name": "deliveries", "description": "Read deliveries and repeat them."},
    {"name": "providers", "description": "Read operations, limits and counts; pause and resume providers."},
    {"name": "audit", "description": "Read what persons did."},
    {"name": "keys", "description": "Create, rotate and revoke API keys that allow no more than yours."},
]

DESCRIPTION = """Durable jobs on slow, asynchronous AI APIs. Each job is submitted once; all handlers get its result.

Every request needs an API key (`Authorization: Bearer ow_…`). Times are seconds since 1970 by the store's clock. Errors
are problem details (RFC 9457): branch on `code`. Every answer has an `X-Request-Id`."""


def install(app: FastAPI) -> None:
    """Make an app serve this document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI documents


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version="1",
        summary="HTTP API, version 1",
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    _, components = msgspec.json.schema_components(TYPES, ref_template=REF)
    for component in components.values():
        component["description"] = cleandoc(component["description"])  # Python before 3.13 leaves it indented
        _as_written(component)
    schemas: dict[str, Any] = document["components"]["schemas"]
    for schema in schemas.values():
        _as_asked(schema)
    document["components"]["schemas"] = dict(sorted((components | schemas).items()))
    return document


def _as_written(schema: dict[str, Any]) -> None:
    """Mark fields as required: they are always written, except in the types that leave out defaults."""
    properties = schema.get("properties", {})
    if schema.get("title") not in _OMITTING:
        schema["required"] = list(properties)
    for field in properties.values():
        field.pop("default", None)


def _as_asked(schema: dict[str, Any]) -> None:
    """Write the defaults of requests into the descriptions.

    A field with the keyword `default` is required in the types that openapi-typescript makes, as if a request had to
    contain it.
    """
    for field in schema.get("properties", {}).values():
        default = field.pop("default", None)
        if default not in (None, {}, []):
            field["description"] = f"{field.get('description', '')} Default: {default}.".strip()


_OMITTING = frozenset({"EnqueuedItem", "JobError", "Problem"})
