"""Connections over real sockets: what certainly never left is told from what did, perhaps."""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from pydantic import SecretStr

from outwait.worker.model.errors import AddressRefused, AnswerLost, NotSent, ProviderError, ResultTooLarge
from outwait.worker.net.departure import DEPARTURE
from outwait.worker.net.http import Http
from outwait.worker.net.outbound import Guard
from tests import tls_proxy
from tests.patience import PATIENCE
from tests.tls import certificate

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[str]]
BODY_MAX = 100_000


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http(body_max=BODY_MAX, guard=Guard(["127.0.0.1"]))
    yield http
    await http.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []

    async def begin(answer: Answer) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        server = TestServer(app)
        await server.start_server(shutdown_timeout=0.1)
        servers.append(server)
        return str(server.make_url("/"))

    yield begin
    for server in servers:
        await server.close()


def get(url: str) -> httpx.Request:
    return httpx.Request("GET", url)


async def fails(kind: type[ProviderError], work: Awaitable[object]) -> str:
    with pytest.raises(kind) as caught:
        await work
    assert type(caught.value) is kind
    return str(caught.value)


async def test_an_answer_is_read_whole(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["x-a"] == "1"
        return web.Response(status=207, body=await request.read(), headers={"x-b": "2"})

    request = httpx.Request("POST", await serve(answer), headers={"x-a": "1"}, content=b"body")
    response = await http.send(request, timeout=PATIENCE, fresh=True)
    assert (response.status_code, response.content, response.headers["x-b"]) == (207, b"body", "2")
    assert response.request is request


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_refused_connection_was_not_sent(http: Http, *, fresh: bool) -> None:
    url = f"http://127.0.0.1:{unused_port()}/path?token=secret"
    message = await fails(NotSent, http.send(get(url), timeout=PATIENCE, fresh=fresh))
    assert "secret" not in message


async def test_a_name_that_nobody_has_was_not_sent(http: Http) -> None:
    await fails(NotSent, http.send(get("http://name.invalid/"), timeout=PATIENCE))


async def test_a_server_without_tls_was_not_sent(http: Http, serve: Serve) -> None:
    url = (await serve(answered)).replace("http://", "https://")
    await fails(NotSent, http.send(get(url), timeout=PATIENCE))


async def test_a_connection_that_never_stands_was_not_sent(http: Http) -> None:
    """A server whose handshake hangs: the time for connecting ends before the time for the answer."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    message = await fails(NotSent, http.send(get(f"https://127.0.0.1:{port}/p?webhook=secret"), timeout=0.5))
    assert "secret" not in message
    server.close()
    await server.wait_closed()


async def test_a_connection_that_breaks_lost_the_answer(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    url = await serve(answer)
    await fails(AnswerLost, http.send(httpx.Request("POST", url, content=b"x"), timeout=PATIENCE, fresh=True))
    await fails(AnswerLost, http.send(get(url), timeout=PATIENCE))


async def test_a_get_whose_connection_breaks_is_not_repeated(http: Http, serve: Serve) -> None:
    """Protected by worker/net/http.py `_no_repetition`: aiohttp would send it a second time at once."""
    arrived = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        if arrived > 1 and request.transport is not None:
            request.transport.abort()
        return web.Response()

    url = await serve(answer)
    await http.send(get(url), timeout=PATIENCE)
    await fails(AnswerLost, http.send(get(url), timeout=PATIENCE))
    assert arrived == 2


async def test_a_reset_after_the_request_left_lost_the_answer(http: Http) -> None:
    """The system reports it as it reports a refused connection; taken for one, it would be a second payment."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    message = await fails(AnswerLost, http.send(httpx.Request("POST", url, content=b"x"), timeout=PATIENCE, fresh=True))
    assert "reset" in message.lower()
    server.close()
    await server.wait_closed()


class Late:
    """A step whose request may leave only after the server has closed its connection."""

    def __init__(self, closed: asyncio.Event) -> None:
        self._closed = closed

    async def permit(self) -> None:
        await self._closed.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # the loop notices it

    def check(self) -> None:
        pass


async def test_a_connection_that_closed_before_the_request_may_leave_sent_nothing(http: Http) -> None:
    """Protected by worker/net/http.py `_Request`: writing the intent may take seconds, and servers do not wait."""
    closed, arrived = asyncio.Event(), bytearray()

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        closed.set()
        arrived.extend(await reader.read())

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    DEPARTURE.set(Late(closed))
    await fails(NotSent, http.send(httpx.Request("POST", url, content=b"x"), timeout=PATIENCE, fresh=True))
    assert arrived == b""
    server.close()
    await server.wait_closed()


async def test_no_answer_in_time_lost_it(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    await fails(AnswerLost, http.send(get(await serve(answer)), timeout=0.2))


async def test_half_a_body_lost_the_answer(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    await fails(AnswerLost, http.send(get(await serve(answer)), timeout=PATIENCE))


async def test_a_redirect_is_an_answer(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/elsewhere"})

    response = await http.send(get(await serve(answer)), timeout=PATIENCE)
    assert response.status_code == 302


async def test_no_cookie_is_kept(http: Http, serve: Serve) -> None:
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("cookie"))
        return web.Response(headers={"set-cookie": "a=b"})

    url = await serve(answer)
    for _ in range(2):
        await http.send(get(url), timeout=PATIENCE)
    assert seen == [None, None]


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("size", [BODY_MAX, BODY_MAX + 1])
async def test_the_cap_holds_for_every_framing(http: Http, serve: Serve, size: int, *, chunked: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if not chunked:
            response.content_length = size
        await response.prepare(request)
        await response.write(b"x" * size)
        return response

    sent = http.send(get(await serve(answer)), timeout=PATIENCE)
    if size <= BODY_MAX:
        assert len((await sent).content) == size
    else:
        assert "OUTWAIT_STORE__RESULT_MAX" in await fails(ResultTooLarge, sent)


async def test_the_cap_counts_what_was_decompressed(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        size = BODY_MAX if request.path == "/small" else BODY_MAX * 50
        return web.Response(body=gzip.compress(b"x" * size), headers={"content-encoding": "gzip"})

    url = await serve(answer)
    small = await http.send(get(url + "small"), timeout=PATIENCE)
    assert small.content == b"x" * BODY_MAX
    await fails(ResultTooLarge, http.send(get(url + "bomb"), timeout=PATIENCE))


@pytest.mark.parametrize("length", [None, 300_000])
async def test_a_body_is_sent_as_it_comes(http: Http, serve: Serve, length: int | None) -> None:
    async def answer(request: web.Request) -> web.Response:
        framing = request.headers.get("transfer-encoding"), request.headers.get("content-length")
        assert framing == (("chunked", None) if length is None else (None, str(length)))
        return web.json_response(len(await request.read()))

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000

    headers = {} if length is None else {"content-length": str(length)}
    request = httpx.Request("POST", await serve(answer), content=body(), headers=headers)
    assert (await http.send(request, timeout=PATIENCE, fresh=True)).json() == 300_000


async def test_a_large_answer_is_handed_out_unread(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=203, body=b"x" * (BODY_MAX * 3))

    async with http.stream(get(await serve(answer)), timeout=PATIENCE) as response:
        sizes = [len(chunk) async for chunk in response.aiter_raw()]
    assert response.status_code == 203
    assert sum(sizes) == BODY_MAX * 3
    assert max(sizes) <= 65536


async def test_a_stream_that_breaks_is_told(http: Http, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def read() -> None:
        async with http.stream(get(await serve(answer)), timeout=PATIENCE) as response:
            async for _ in response.aiter_raw():
                pass

    await fails(AnswerLost, read())
    refused = http.stream(get(f"http://127.0.0.1:{unused_port()}/"), timeout=PATIENCE)
    await fails(NotSent, refused.__aenter__())


PRIVATE = [
    "127.0.0.1",
    "localhost",  # a name that resolves to it
    "0x7f000001",  # spellings that a resolver takes for it
    "0x7f.1",
    "2130706433",
    "127.1",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
]


@pytest.mark.parametrize("host", PRIVATE)
async def test_what_a_producer_names_never_reaches_this_machine(serve: Serve, host: str) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response()

    url = (await serve(answer)).replace("127.0.0.1", host)
    http = Http(body_max=BODY_MAX)
    try:
        with pytest.raises(NotSent) as refused:
            await http.stream(get(url), timeout=PATIENCE).__aenter__()
    finally:
        await http.close()
    assert "OUTWAIT_OUTBOUND__ALLOW" in str(refused.value) or "not a canonical" in str(refused.value)
    assert not asked


@pytest.mark.parametrize("allow", ["localhost", "127.0.0.0/8", "127.0.0.1", "LOCALHOST"])
async def test_what_the_operator_allows_is_reached_by_name_or_address(serve: Serve, allow: str) -> None:
    url = (await serve(answered)).replace("127.0.0.1", "localhost")  # resolves to ::1 too, where nobody listens
    http = Http(body_max=BODY_MAX, guard=Guard([allow]))
    try:
        async with http.stream(get(url), timeout=PATIENCE) as answer:
            assert answer.status_code == 200
        await fails(AddressRefused, http.stream(get("http://10.0.0.1/"), timeout=PATIENCE).__aenter__())
    finally:
        await http.close()


async def test_no_proxy_of_the_environment_is_asked(serve: Serve, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    async with http.stream(get(await serve(answered)), timeout=PATIENCE) as answer:
        assert answer.status_code == 200


async def answered(request: web.Request) -> web.Response:
    return web.Response()


class Proxy:
    """A proxy that opens tunnels; `refusal` is what it says instead, and nothing if that is empty."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.refusal: bytes | None = None
        self.url = ""

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://user:word@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.refusal is not None:
            writer.write(self.refusal)
            writer.close()
            return
        host, _, port = head.split()[1].decode().partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(tls_proxy.copy(reader, back), tls_proxy.copy(there, writer))


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    server = await proxy.serve()
    yield proxy
    server.close()


class Tunnelled(NamedTuple):
    """Connections through the proxy, the address of a server with TLS, and the bodies that arrived there."""

    http: Http
    url: str
    arrived: list[bytes]


@pytest.fixture
async def tunnelled(proxy: Proxy, tmp_path: Path) -> AsyncIterator[Tunnelled]:
    arrived: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        arrived.append(await request.read())
        if request.path == "/broken" and request.transport:
            request.transport.abort()
        return web.Response(text="taken")

    files = certificate(tmp_path)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*files)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=served, shutdown_timeout=0.1)
    http = Http(
        body_max=BODY_MAX,
        verify=ssl.create_default_context(cafile=str(files[0])),
        guard=Guard(["127.0.0.1"]),
        proxy=SecretStr(proxy.url),
    )
    yield Tunnelled(http, str(server.make_url("/")), arrived)
    await http.close()
    await server.close()


def post(url: str) -> httpx.Request:
    return httpx.Request("POST", url, content=b"paid")


async def test_the_proxy_of_the_settings_opens_a_tunnel_to_a_provider(tunnelled: Tunnelled, proxy: Proxy) -> None:
    answer = await tunnelled.http.send(post(tunnelled.url), timeout=PATIENCE, fresh=True)
    assert answer.text == "taken"
    (head,) = proxy.heads
    assert head.startswith(b"CONNECT 127.0.0.1:")
    assert b"\r\nProxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in head
    assert tunnelled.arrived == [b"paid"]


async def test_plain_http_and_what_a_producer_names_go_past_the_proxy(
    tunnelled: Tunnelled, proxy: Proxy, serve: Serve
) -> None:
    await tunnelled.http.send(get(await serve(answered)), timeout=PATIENCE)
    async with tunnelled.http.stream(get(tunnelled.url), timeout=PATIENCE) as answer:
        assert answer.status_code == 200
    assert proxy.heads == []


@pytest.mark.parametrize(
    "refusal", [b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\n\r\n", b"", b"rubbish\r\n\r\n"]
)
async def test_without_a_tunnel_nothing_was_sent(tunnelled: Tunnelled, proxy: Proxy, refusal: bytes) -> None:
    proxy.refusal = refusal
    message = await fails(NotSent, tunnelled.http.send(post(tunnelled.url), timeout=PATIENCE, fresh=True))
    assert "proxy" in message
    assert "word" not in message
    assert tunnelled.arrived == []


async def test_a_proxy_that_is_away_sent_nothing() -> None:
    http = Http(body_max=BODY_MAX, proxy=SecretStr(f"http://127.0.0.1:{unused_port()}"))
    await fails(NotSent, http.send(post("https://127.0.0.1:1/"), timeout=PATIENCE, fresh=True))
    await http.close()


async def test_what_breaks_in_a_tunnel_may_have_been_sent(tunnelled: Tunnelled) -> None:
    request = post(tunnelled.url + "broken")
    await fails(AnswerLost, tunnelled.http.send(request, timeout=PATIENCE, fresh=True))
    assert tunnelled.arrived == [b"paid"]
