"""How each provider reads status documents, and what becomes of those that nobody documents."""

# ruff: noqa: ARG002 - stand-ins follow a protocol

import string
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outwait.worker.model.errors import NotSent, RateLimited, Unreadable
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
from outwait.worker.providers.exchange import LONGEST_WAIT, Count, Exchange
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
    """Answers that are ready: the parsing is under test here, connections are elsewhere.

    A document that is bytes is sent as it is. `token` replaces fields of the token endpoint's answer.
    """

    def __init__(
        self,
        *documents: Any,
        status: int = 200,
        headers: dict[str, str] | None = None,
        token: dict[str, Any] | None = None,
        token_status: int = 200,
    ) -> None:
        self.documents = list(documents)
        self.token = {"access_token": "t", "expires_in": 3600} | (token or {})
        self.token_status = token_status
        self.status = status
        self.headers = headers or {}
        self.requests: list[httpx.Request] = []

    async def send(self, request: httpx.Request, *, timeout: float, fresh: bool = False) -> httpx.Response:
        if request.url.path.endswith("/oauth/token"):
            token = msgspec.json.encode(self.token)
            return httpx.Response(self.token_status, content=token, headers=self.headers, request=request)
        self.requests.append(request)
        document = self.documents[min(len(self.requests), len(self.documents)) - 1]
        content = document if isinstance(document, bytes) else msgspec.json.encode(document)
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


class Remembering(NoStore):
    """Notes the tokens that were kept, and for how long renewing was locked."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, float]] = []
        self.locked: list[float] = []

    async def put_token(self, name: str, token: str, *, ttl_s: float) -> None:
        self.kept.append((token, ttl_s))

    async def lock_token(self, name: str, *, ttl_s: float) -> bool:
        self.locked.append(ttl_s)
        return True


def fresh(name: str) -> Provider:
    """A provider that has no token yet."""
    return build(CREDENTIALS).get(name)


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


PARAMS = {
    "ringcentral": ("punctuate", {"texts": ["a"]}),
    "elevateai": ("audio", {"languageTag": "en", "downloadUri": "https://x.example/a.wav"}),
    "unless": ("query", {"query": "q", "sessionId": "s", "visitorId": "v"}),
}
ID_FIELDS = {"ringcentral": "jobId", "elevateai": "interactionIdentifier", "unless": "questionId"}


async def submitted(name: str, document: Any, *, webhook_url: str | None = None, **answer: Any) -> SubmitAnswer:
    operation, params = PARAMS[name]
    job = Submission("job", operation, REGISTRY.validate(name, operation, params), webhook_url)
    return await provider_of(name).submit(job, exchange_of(Canned(document, **answer)))


@pytest.mark.parametrize(
    ("time", "left"),
    [
        ("2026-11-28T21:30:00.500Z", 600.5),
        ("2026-11-28T23:30:00+02:00", 600.0),
        ("2024-01-05T16:01:18.558Z", None),  # past, though the provider still knows the job
        ("next week", None),
        (1767225600, None),
        (None, None),
    ],
)
async def test_ringcentral_says_when_its_id_expires_by_its_own_clock(time: Any, left: float | None) -> None:
    document = {"status": "InProgress", "expirationTime": time}
    answer = await polled("ringcentral", document, headers={"date": "Sat, 28 Nov 2026 21:20:00 GMT"})
    assert answer == Pending("InProgress", expires_in=left)


@pytest.mark.parametrize("name", PARAMS)
async def test_retry_after_of_a_submits_answer_is_handed_on(name: str) -> None:
    operation, params = PARAMS[name]
    exchange = exchange_of(Canned({ID_FIELDS[name]: "x-1"}, status=202, headers={"retry-after": "90"}))
    await provider_of(name).submit(Submission("job", operation, REGISTRY.validate(name, operation, params)), exchange)
    assert exchange.first_poll_in == 90


@pytest.mark.parametrize(
    ("name", "document"), [("ringcentral", {"id": "x"}), ("elevateai", {"identifier": "x"}), ("unless", {})]
)
async def test_a_submit_without_an_id_is_unreadable(name: str, document: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        await submitted(name, document)


@pytest.mark.parametrize("name", ID_FIELDS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("value", "known_as"), [(b'"x-1"', "x-1"), (b"9007199254740993", "9007199254740993")])
async def test_an_unambiguous_id_is_accepted(name: str, mark: bytes, value: bytes, known_as: str) -> None:
    document = mark + b'{"' + ID_FIELDS[name].encode() + b'": ' + value + b"}"
    assert (await submitted(name, document, status=202)).external_id == known_as


@pytest.mark.parametrize("name", ID_FIELDS)
@pytest.mark.parametrize("value", [b"9007199254740993.0", b"0", b"-1", b"true", b"null", b'""', b"[1]"])
async def test_an_ambiguous_id_is_not_accepted(name: str, value: bytes) -> None:
    with pytest.raises(Unreadable):
        await submitted(name, b'{"' + ID_FIELDS[name].encode() + b'": ' + value + b"}", status=202)


async def test_nothing_in_a_202_means_that_a_webhook_follows_if_one_was_asked_for() -> None:
    url = "https://hooks.example/x"
    assert await submitted("ringcentral", b" ", status=202, webhook_url=url) == SubmitAnswer("", "webhook")
    for answer in ({"status": 200, "webhook_url": url}, {"status": 202}):
        with pytest.raises(Unreadable):
            await submitted("ringcentral", b"", **answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("life", "kept_s"),
    [(3600, 3600), ("3600", 3600), (3600.5, 3600.5), (10**12, 86_400), ("1e300", 86_400)],
)
async def test_the_life_of_a_token(life: Any, kept_s: float) -> None:
    store = Remembering()
    exchange = Exchange(Canned({}, token={"expires_in": life}), store, 5)
    await fresh("ringcentral").prepare(exchange)
    assert store.kept == [("t", kept_s)]


@pytest.mark.parametrize("life", [0, -1, "soon", None, True, "nan", "inf", [3600]])
async def test_a_token_whose_life_is_not_clear_is_not_used(life: Any) -> None:
    with pytest.raises(NotSent, match="lacks access_token or expires_in"):
        await fresh("ringcentral").prepare(exchange_of(Canned({}, token={"expires_in": life})))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_the_token_endpoint_cannot_ask_for_years_of_silence(status: int, wait: str) -> None:
    store = Remembering()
    exchange = Exchange(Canned({}, token_status=status, headers={"retry-after": wait}), store, 5)
    with pytest.raises(NotSent) as caught:
        await fresh("ringcentral").prepare(exchange)
    assert exchange.pause is not None
    assert exchange.pause <= 3600
    assert caught.value.retry_after == exchange.pause
    assert max(store.locked) <= 3600


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
        ({"x-rate-limit-window": "inf"}, 60),
        ({"x-rate-limit-window": "nan"}, 60),
        ({"x-rate-limit-window": "-5"}, 30),
        ({"x-rate-limit-window": "999999999"}, LONGEST_WAIT),
        ({"retry-after": "999999999"}, LONGEST_WAIT),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST_WAIT),
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
        ({"x-rate-limit-remaining": "0", "x-rate-limit-window": "inf"}, 60),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-window": "nan"}, 60),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-window": "-1"}, 1),
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
        ({"jobId": 9007199254740993, "status": "InProgress"}, "9007199254740993", Pending),
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
