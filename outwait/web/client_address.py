"""The address from which a request comes, also behind proxies."""

from collections.abc import Iterator
from functools import cache

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from outwait.config.http_groups import WebSettings
from outwait.worker.model.networks import Network, contain, read_address, read_networks


def client_address(request: HTTPConnection) -> str:
    """The caller's address, such as `192.0.2.7` or `2001:db8::1`; empty if the server does not know it.

    Use it, and never `request.client`, where an address is logged, stored, compared or counted; to count, give it to
    `outwait.worker.model.networks.subscriber` first. A route or a dependency calls it with its `Request`, a middleware
    with `HTTPConnection(scope)`.

    It is the address that connected to us. If that is one of `OUTWAIT_WEB__TRUSTED_PROXIES`, it is the last address in
    the proxies' header (`OUTWAIT_WEB__PROXY_HEADER`) that is no trusted proxy: the caller may have written what comes
    before it. uvicorn's own `proxy_headers` knows no `Forwarded`, and takes any text for an address.
    """
    web: WebSettings = request.app.state.web
    return caller_of(request.client.host if request.client else "", request.headers, web)


def caller_of(connected: str, headers: Headers, web: WebSettings) -> str:
    """The caller's address, by the address that connected and the headers of the request."""
    trusted, address = _networks(tuple(web.trusted_proxies)), str(read_address(connected) or connected)
    for hop in _hops(headers, web.proxy_header) if trusted else ():
        if not contain(trusted, address):
            break
        named = read_address(hop)
        if named is None:
            break  # `unknown`, say: nobody nearer than this proxy is known
        address = str(named)
    return address


@cache
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return read_networks(texts)


def _hops(headers: Headers, name: str) -> Iterator[str]:
    """The addresses in the proxies' header, the nearest first."""
    for entry in reversed(",".join(headers.getlist(name)).split(",")):
        yield _host(_for(entry) if name == "forwarded" else entry)


def _for(entry: str) -> str:
    """The value of `for` in an entry of `Forwarded` (RFC 7239)."""
    pairs = (pair.partition("=") for pair in entry.split(";"))
    return next((value for name, _, value in pairs if name.strip().lower() == "for"), "")


def _host(node: str) -> str:
    """An address without quotes, brackets and port."""
    node = node.strip().strip('"')
    if node.startswith("["):
        return node[1:].partition("]")[0]
    return node.partition(":")[0] if node.count(":") == 1 else node
