"""`outwait doctor` recognises each provider: a server that is not this provider is no healthy provider."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from outwait.cli.provider_check import check_providers
from outwait.config.settings import Settings
from outwait.worker.store.health import Finding
from tests.stack import Stack

NAMES = ("ringcentral", "elevateai", "unless")


class Stranger(BaseHTTPRequestHandler):
    """A web server that knows no path, and answers in the form that a test asks for."""

    answer: ClassVar[tuple[int, str, bytes]] = (404, "text/html", b"")

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that the server looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("doctor")
    with Stack(redis_url, folder) as running:
        running.web()
        yield running


@pytest.fixture
def stranger() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def at(stack: Stack, address: str) -> Settings:
    """The stack's settings, with every provider at this address."""
    moved = {name: {**given, "base_url": address} for name, given in stack.settings.providers.items()}
    return stack.settings.model_copy(update={"providers": moved})


async def findings(settings: Settings) -> dict[str, Finding]:
    return {one.subject.removeprefix("provider "): one for one in await check_providers(settings)}


async def test_each_provider_is_recognised(stack: Stack) -> None:
    assert {name: one.level for name, one in (await findings(stack.settings)).items()} == dict.fromkeys(NAMES, "ok")


async def test_our_own_web_page_is_no_provider(stack: Stack) -> None:
    for name, one in (await findings(at(stack, stack.web_url))).items():
        assert one.level == "error", (name, one)
        assert "answers, but not as" in one.message
        assert f"OUTWAIT_PROVIDERS__{name.upper()}__BASE_URL" in one.advice


@pytest.mark.parametrize(
    "answer",
    [
        (404, "text/html", b"<h1>Not Found</h1>"),
        (404, "application/json", b'{"detail": "Not Found"}'),
        (404, "application/json", b'["no"]'),
        (200, "application/json", b"{}"),
        (200, "text/html", b"<h1>It works!</h1>"),
        (302, "text/html", b"moved"),
        (405, "text/plain", b"no"),
    ],
    ids=lambda answer: f"{answer[0]} {answer[2].decode()}",
)
async def test_another_server_is_no_provider(
    stack: Stack, stranger: str, answer: tuple[int, str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stranger, "answer", answer)
    for name, one in (await findings(at(stack, stranger))).items():
        assert one.level == "error", (name, one)
        assert "answers, but not as" in one.message, (name, one)


async def test_a_404_without_a_body_proves_nothing(
    stack: Stack, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stranger, "answer", (404, "text/plain", b""))
    for one in (await findings(at(stack, stranger))).values():
        assert (one.level, one.message) == ("warning", "answers 404 without a body, as any web server may")


async def test_nobody_at_the_address(stack: Stack) -> None:
    for one in (await findings(at(stack, "http://127.0.0.1:1"))).values():
        assert one.level == "error"
        assert "BASE_URL" in one.advice
