"""How each provider reads status documents, and what becomes of those that nobody documents."""

# ruff: noqa: ARG002 - stand-ins follow a protocol

import string
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outwait.worker.model.errors import RateLimited, Unreadable
from outwait.worker.providers.contract import (
    Failed,
    Pending,
    PollAnswer,
    Provider,
    Submission,
    SubmitAnswer,
    Succeeded,
    Waiting,
)
from outwait.worker.providers.exchange import Count, Exchange
from outwait.worker.providers.registry import build

CREDENTIALS = {
    "unless": {"api_key": "k", "user_email": "a@b.example", "account_id": "a", "website_id": "w"},
    "ringcentral": {"client_id": "c", "client_secret": "s", "jwt": "j"},
    "elevateai": {"api_token": "t"},
}
REGISTRY = build(CREDENTIALS)
WORDS = {
    "unless": {"PENDING": Pending, "PROCESSING": Pending, "DONE": Succeeded, "ERROR": Failed},
    "ringcentral": {"InProgress": Pending, "Success": Succeeded, "Fail": Failed},
    "elevateai": {
        **dict.fromkeys(
            (
                "declared",
                "filePendingUpload",
                "fileUploading",
                "fileUploaded",
                "filePendingDownload",
                "fileDownloading",
                "fileDownloaded",
                "pendingProcessing",
                "processing",
                "fileUploadFailed",
            ),
            Pending,
        ),
        "fileDownloadFailed": Failed,
        "processed": Succeeded,
        "processingFailed": Failed,
    },
}
KNOWN = [(name, word) for name, words in WORDS.items() for word in words]


class Canned:
    """Answers that are ready: the parsing is under test here, connections are elsewhere."""

    def __init__(self, *documents: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.documents = list(documents)
        self.status = status
        self.headers = headers or {}
        self.requests: list[httpx.Request] = []

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        if request.url.path.endswith("/oauth/token"):
            token = msgspec.json.encode({"access_token": "t", "expires_in": 3600})
            return httpx.Response(200, content=token, request=request)
        self.requests.append(request)
        document = self.documents[min(len(self.requests), len(self.documents)) - 1]
        content = msgspec.json.encode(document)
        return httpx.Response(self.status, content=content, headers=self.headers, request=request)

    def stream(self, request: httpx.Request, *, timeout: float) -> Any:
        raise AssertionError("nothing is streamed here")


class NoStore:
    """Shares nothing."""

    async def token(self, name: str) -> tuple[str, float] | None:
        return None

    async def put_token(self, name: str, token: str, *, ttl_s: float) -> None: ...

    async def drop_token(self, name: str, token: str) -> None: ...

    async def lock_token(self, name: str, *, ttl_s: float) -> bool:
        return True

    async def unlock_token(self, name: str) -> None: ...


def exchange_of(sender: Canned) -> Exchange:
    return Exchange(sender, NoStore(), 5)


def provider_of(name: str) -> Provider:
    return REGISTRY.get(name)


async def polled(name: str, document: Any, *, memo: str = "", **answer: Any) -> PollAnswer:
    async def params() -> Any:
        return None

    operation = next(iter(provider_of(name).operations))
    job = Waiting("job", operation, "id-1", memo, 0, params)
    return await provider_of(name).poll(job, exchange_of(Canned(document, **answer)))


@pytest.mark.parametrize(("name", "word"), KNOWN)
@given(data=st.data())
async def test_every_documented_status_in_any_case(name: str, word: str, data: st.DataObject) -> None:
    cases = data.draw(st.lists(st.booleans(), min_size=len(word), max_size=len(word)))
    spelt = "".join(letter.upper() if upper else letter.lower() for letter, upper in zip(word, cases, strict=True))
    answer = await polled(name, {"status": spelt})
    assert type(answer) is WORDS[name][word]
    assert answer.status == spelt


@pytest.mark.parametrize("name", WORDS)
@given(status=st.none() | st.integers() | st.text(max_size=80) | st.lists(st.text(max_size=3)) | st.booleans())
async def test_every_other_status_is_unfinished_with_a_warning(name: str, status: Any) -> None:
    if str(status).lower() in {word.lower() for word in WORDS[name]}:
        return
    answer = await polled(name, {"status": status})
    assert isinstance(answer, Pending)
    assert "unknown status" in (answer.warning or "")
    assert len(answer.status) <= 60


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(string.printable, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["errors", "errorCode", "message", "history", "sender", "errorMessage"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(("name", "word"), KNOWN)
@given(junk=JSON)
async def test_no_document_breaks_the_reading(name: str, word: str, junk: Any) -> None:
    fields = ("response", "chatData", "error", "errorMessage", "identifier")
    answer = await polled(name, {"status": word, **dict.fromkeys(fields, junk)})
    assert isinstance(answer, Pending | Succeeded | Failed)
    if isinstance(answer, Failed):
        assert answer.message
        assert answer.code


@pytest.mark.parametrize(("name", "word"), [(n, w) for n, w in KNOWN if WORDS[n][w] is Pending and "Upload" not in w])
async def test_retry_after_of_an_unfinished_job_is_handed_on(name: str, word: str) -> None:
    answer = await polled(name, {"status": word}, headers={"retry-after": "77"})
    assert isinstance(answer, Pending)
    assert answer.poll_in == 77


@pytest.mark.parametrize(
    ("name", "document"), [("ringcentral", {"id": "x"}), ("elevateai", {"identifier": "x"}), ("unless", {})]
)
async def test_a_submit_without_an_id_is_unreadable(name: str, document: dict[str, Any]) -> None:
    params = {
        "ringcentral": ("punctuate", {"texts": ["a"]}),
        "elevateai": ("audio", {"languageTag": "en", "downloadUri": "https://x.example/a.wav"}),
        "unless": ("query", {"query": "q", "sessionId": "s", "visitorId": "v"}),
    }
    operation, given_params = params[name]
    job = Submission("job", operation, REGISTRY.validate(name, operation, given_params))
    with pytest.raises(Unreadable):
        await provider_of(name).submit(job, exchange_of(Canned(document)))


@pytest.mark.parametrize(
    ("chat", "last_word"),
    [
        ({"history": [{"sender": "bot", "message": "a"}, {"sender": "bot", "message": "b"}, {"sender": "user"}]}, "b"),
        ({"history": [{"sender": "user", "message": "a"}]}, None),
        ({}, None),
        (None, None),
    ],
)
async def test_the_last_word_of_the_bot(chat: Any, last_word: str | None) -> None:
    answer = await polled("unless", {"status": "DONE", "chatData": chat})
    assert isinstance(answer, Succeeded)
    assert answer.result == {"answer": last_word, "chatData": chat}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "5"}, 5),
        ({"x-rate-limit-window": "45"}, 45),
        ({"x-rate-limit-window": "1"}, 30),
        ({"x-rate-limit-window": "soon"}, 60),
        ({}, 60),
    ],
)
async def test_a_429_of_ringcentral_that_names_no_time(headers: dict[str, str], wait: float) -> None:
    with pytest.raises(RateLimited) as caught:
        await polled("ringcentral", {}, status=429, headers=headers)
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"x-rate-limit-remaining": "0", "x-rate-limit-window": "20"}, 20),
        ({"x-rate-limit-remaining": "0"}, 60),
        ({"x-rate-limit-remaining": "1", "x-rate-limit-window": "20"}, None),
        ({}, None),
    ],
)
async def test_the_last_request_of_a_window(headers: dict[str, str], pause: float | None) -> None:
    exchange = exchange_of(Canned({"jobId": "j"}, status=202, headers=headers))
    job = Submission("job", "punctuate", REGISTRY.validate("ringcentral", "punctuate", {"texts": ["a"]}))
    assert await provider_of("ringcentral").submit(job, exchange) == SubmitAnswer("j")
    assert exchange.pause == pause
    assert exchange.ledger == {Count.SUBMITS: 1}


@pytest.mark.parametrize(
    ("body", "external_id", "kind"),
    [
        ({"jobId": "j", "status": "Success", "response": {"texts": []}}, "j", Succeeded),
        ({"status": "Success", "response": {"texts": []}}, None, Succeeded),
        ({"jobId": "j", "status": "Fail", "response": {"errors": [{"errorCode": "CAI-101"}]}}, "j", Failed),
        ({"jobId": "j", "status": "InProgress"}, "j", Pending),
        ({"utterances": []}, None, Pending),
    ],
)
def test_webhooks_of_every_shape(body: dict[str, Any], external_id: str | None, kind: type[PollAnswer]) -> None:
    read = provider_of("ringcentral").read_webhook(msgspec.json.encode(body))
    assert read.external_id == external_id
    assert type(read.answer) is kind


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"\xff"])
def test_a_webhook_that_is_no_object(body: bytes) -> None:
    with pytest.raises(Unreadable):
        provider_of("ringcentral").read_webhook(body)


def test_those_who_send_no_webhooks_read_none() -> None:
    for name in ("unless", "elevateai"):
        assert not provider_of(name).webhooks
        with pytest.raises(Unreadable):
            provider_of(name).read_webhook(b"{}")


async def test_media_urls_never_show_in_a_failure() -> None:
    error = {"errorCode": "CAI-101", "message": "no https://x.example/a?access_token=5ecret", "parameterValue": "x"}
    nested = {**error, "parameterValue": "https://x.example/b?access_token=5ecret"}
    answer = await polled("ringcentral", {"status": "Fail", "response": {"errors": [nested]}})
    assert isinstance(answer, Failed)
    assert answer.code == "CAI-101"
    assert "5ecret" not in f"{answer}"
