"""Renders pages: the Jinja environment, the formats of numbers and times, and the headers of every page."""

import hashlib
import re
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from outwait.web.pages.notices import notice
from outwait.web.pages.session import Viewer
from outwait.web.pages.tones import tone
from outwait.web.services import services
from outwait.worker.net.redaction import redact

HERE = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would send our own forms with the origin `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Headers of every page: only our own scripts and styles load, and no page is framed or cached."""


class Asset(NamedTuple):
    """A file that pages load. Its version changes when its content does."""

    body: bytes
    media_type: str
    version: str


_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def assets() -> dict[str, Asset]:
    """Our files, by name."""
    bodies = {file.name: file.read_bytes() for file in (HERE / "assets").iterdir() if file.suffix in _MEDIA_TYPES}
    return {
        name: Asset(body, _MEDIA_TYPES[Path(name).suffix], hashlib.sha256(body).hexdigest()[:12])
        for name, body in bodies.items()
    }


class Attention(NamedTuple):
    """How many jobs and deliveries wait for a person; shown beside the links to them."""

    held: int
    dead: int


async def page(
    request: Request, template: str, viewer: Viewer | None = None, *, status: int = 200, **context: Any
) -> HTMLResponse:
    """Render a page with its navigation. Raises StoreUnavailable if the navigation needs the store."""
    shared = services(request)
    waiting = None
    if viewer is not None and viewer.sees_all_tenants:
        stats = shared.store.statistics
        waiting = Attention(sum((await stats.held(shared.registry.names)).values()), await stats.dead())
    # Flower shows the jobs of all tenants.
    flower = shared.settings.web.flower_url if viewer and viewer.sees_all_tenants else None
    return render(request, template, status=status, viewer=viewer, waiting=waiting, flower_url=flower, **context)


def render(request: Request, template: str, *, status: int, **context: Any) -> HTMLResponse:
    """Render a page without reading the store."""
    common = {
        "viewer": None,
        "waiting": None,
        "path": request.url.path,
        "now": time.time(),
        "flower_url": None,
        "q": "",
        "notice": notice(request.query_params.get("done", ""), request.query_params.get("n", "1")),
    }
    text = environment().get_template(template).render(common | context)
    return HTMLResponse(text, status, HEADERS)


@cache
def environment() -> Environment:
    """The Jinja environment: values are escaped by default, and an undefined name is an error."""
    jinja = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "ago": ago,
        "breakable": breakable,
        "count": "{:,}".format,
        "pairs": lambda names: [(name, name) for name in names],
        "redact": redact,
        "span": span,
        "tone": tone,
        "utc": utc,
        "iso": iso,
        "clock": clock,
    }
    jinja.globals["asset"] = lambda name: f"/assets/{name}?v={assets()[name].version}"
    return jinja


def pretty(value: Any) -> str:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


_SEPARATORS = re.compile(r"(?<=\w)([-_./:@?&=#]+)(?=\w)")


def breakable(name: str) -> Markup:
    """A long name that a browser may break after its separators, so that it need not break inside a word."""
    return Markup("<wbr>").join(_SEPARATORS.sub("\\1\0", name).split("\0"))


def iso(seconds: float) -> str:
    """A point in time in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(seconds: float) -> str:
    """A point in time as date and time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(seconds: float) -> str:
    """The time of day, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%f")[:-3]


def ago(seconds: float, now: float) -> str:
    """A point in time relative to now: `3 min ago`, `in 10 s`."""
    distance = now - seconds
    if abs(distance) < 1:
        return "now"
    return f"{span(distance)} ago" if distance > 0 else f"in {span(-distance)}"


def span(seconds: float) -> str:
    """A length of time in one or two units: `850 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part_size, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            parts = whole % size // part_size
            return f"{whole // size} {unit} {parts} {part_unit}" if parts else f"{whole // size} {unit}"
    return f"{whole} s"
