"""The document of the API (OpenAPI 3.1): FastAPI's, completed with the types of what is answered."""

from inspect import cleandoc
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from outwait.web.answers import REF, TYPES

TAGS = [
    {"name": "jobs", "description": "Enqueue jobs, look at them, wait for them, give them up."},
    {"name": "deliveries", "description": "Where results went, and sending them again."},
    {"name": "providers", "description": "What can be asked for, and what is let through."},
]

DESCRIPTION = """Durable jobs on slow, asynchronous AI APIs: submitted once, waited for, delivered to every handler.

Every request shows an API key (`Authorization: Bearer ow_…`). Times are seconds since 1970 by the store's clock. Errors
are problem details (RFC 9457): branch on `code`. Every answer has an `X-Request-Id`."""


def install(app: FastAPI) -> None:
    """Make an app tell this document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to extend it


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
    document["components"]["schemas"] = dict(sorted((components | schemas).items()))
    return document


def _as_written(schema: dict[str, Any]) -> None:
    """Every field is written, with its default too, except where defaults are left out."""
    properties = schema.get("properties", {})
    if schema.get("title") not in _OMITTING:
        schema["required"] = list(properties)
    for field in properties.values():
        field.pop("default", None)


_OMITTING = frozenset({"EnqueuedItem", "JobError", "Problem"})
