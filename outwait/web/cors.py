"""Pages of other origins: the CORS headers, and an answer that says why a browser may not send its request."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from outwait.web.problems import problem

ASKED = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "traceparent", "X-Request-Id")
"""Headers that a page may send."""

SHOWN = ("Link", "Location", "Retry-After", "X-Request-Id")
"""Headers of answers that a page may read."""


class Cors(CORSMiddleware):
    """Starlette's middleware; but a refused pre-flight request is a problem that names the setting.

    Args:
        app: what is behind it.
        origins: origins whose pages may call the API.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=ASKED, expose_headers=SHOWN
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether it may send a request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        if not self.is_allowed_origin(request_headers["origin"]):
            title, detail = "This origin is not allowed", "OUTWAIT_WEB__CORS_ORIGINS does not list the page's origin."
        else:
            title = "This request is not allowed from another origin"
            detail = f"A page may send GET and POST, with the headers {', '.join(ASKED)}."
        return problem(403, "cors_refused", title, detail, {"Vary": "Origin"})
