"""What an answer means, apart from any provider."""

import email.utils
import math
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outwait.worker.model.errors import (
    ExternalIdUnknown,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from outwait.worker.providers.exchange import (
    LONGEST_WAIT,
    check,
    error_text,
    external_id,
    json_object,
    retry_after,
    seconds_of,
)


def answer(status: int, body: bytes = b"", **headers: str) -> httpx.Response:
    request = httpx.Request("GET", "https://api.example/v1/jobs/1?key=secret")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=body, headers=named, request=request)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Unreadable),
        (400, Rejected),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, ExternalIdUnknown),
        (408, Unavailable),
        (409, Rejected),
        (410, ExternalIdUnknown),
        (413, Rejected),
        (422, Rejected),
        (429, RateLimited),
        (500, Unavailable),
        (503, Unavailable),
        (599, Unavailable),
    ],
)
def test_what_a_status_means(status: int, kind: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        check(answer(status, b'{"message": "why, see https://x.example/secret"}', retry_after="9"))
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.retry_after) == (status, 9)
    assert "why, see https://x.example/…" in str(error)
    assert "secret" not in f"{error} {error.detail}"


def test_an_unknown_address_of_a_submit_is_no_unknown_job() -> None:
    with pytest.raises(Rejected):
        check(answer(404), submit=True)


def test_an_error_text_in_a_form_of_its_own() -> None:
    body = b'{"fault": {"code": "G-1", "reason": "no such file https://x.example/secret"}}'
    with pytest.raises(Rejected, match=r"answered 400: no such file https://x\.example/…$"):
        check(answer(400, body), text=lambda body: str(body["fault"]["reason"]))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_good(status: int) -> None:
    assert check(answer(status)).status_code == status


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"errors": [{"errorCode": "CAI-101", "message": "Bad", "parameterName": "x"}], "message": "Top"},
            "CAI-101 Bad",
        ),
        ({"errorCode": "CMN-301", "message": "Rate"}, "CMN-301 Rate"),
        ({"error": "invalid_client", "error_description": "No such", "errors": []}, "invalid_client No such"),
        ({"errorMessage": "Not found"}, "Not found"),
        ({"message": "Forbidden"}, "Forbidden"),
        ({"error": "Timeout"}, "Timeout"),
        ({"error": {"code": 1}}, ""),
        ({"errors": ["text"]}, ""),
        ([], ""),
        (None, ""),
        ("text", ""),
    ],
)
def test_error_texts_of_every_shape(body: object, text: str) -> None:
    assert error_text(body) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["errors", "errorCode", "message", "error", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_error_body_breaks_the_reading(body: object) -> None:
    assert isinstance(error_text(body), str)


@given(st.binary(max_size=40), st.integers(300, 599))
def test_no_error_body_hides_the_status(body: bytes, status: int) -> None:
    with pytest.raises(ProviderError) as caught:
        check(answer(status, body))
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b"\xff", b'{"a":', b"null"])
def test_what_is_no_object_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable, match="where a JSON object was expected"):
        json_object(answer(200, body, content_type="text/html"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 2.5 ", 2.5),
        ("-3", 0),
        ("999999999", LONGEST_WAIT),
        ("9" * 400, None),  # more than a float holds
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0),
        ("Fri, 31 Dec 99999999 23:59:59 GMT", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("Fri, 99 Zzz 2024", None),
    ],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after(answer(429, retry_after=value)) == seconds


def test_retry_after_as_a_date() -> None:
    for date, seconds in ((time.time() + 60, 60), (time.time() - 60, 0)):
        pause = retry_after(answer(429, retry_after=email.utils.formatdate(date, usegmt=True)))
        assert pause == pytest.approx(seconds, abs=2)
    assert retry_after(answer(429)) is None


def test_retry_after_as_a_date_is_counted_by_the_clock_that_wrote_it() -> None:
    theirs = time.time() + 3600
    when, now = (email.utils.formatdate(at, usegmt=True) for at in (theirs + 60, theirs))
    assert retry_after(answer(429, retry_after=when, date=now)) == 60


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40), st.text("0123456789: GMT,-+"))
def test_no_header_breaks_the_reading(value: str, date: str) -> None:
    response = httpx.Response(
        429, headers=[(b"retry-after", value.encode("latin-1")), (b"date", date.encode())], request=ASKED
    )
    seconds = retry_after(response)
    assert seconds is None or 0 <= seconds <= LONGEST_WAIT


ASKED = httpx.Request("GET", "https://api.example/v1/jobs/1")


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400))
def test_any_seconds_are_bounded(value: Any) -> None:
    seconds = seconds_of(value)
    assert seconds is None or (0 <= seconds <= LONGEST_WAIT and math.isfinite(seconds))


@pytest.mark.parametrize("charset", ["base64", "idna", "utf-16", "zip", "nonsense"])
def test_no_charset_hides_the_status(charset: str) -> None:
    with pytest.raises(Rejected) as caught:
        check(answer(400, b"no \xe9", content_type=f"text/plain; charset={charset}"))
    assert caught.value.detail == "no \ufffd"


def test_a_byte_order_mark_is_not_part_of_the_answer() -> None:
    assert json_object(answer(200, b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "known_as"),
    [
        ("x-1", "x-1"),
        (9007199254740993, "9007199254740993"),  # more than JavaScript's numbers hold
        (2**80, "1208925819614629174706176"),
        ("", None),
        (0, None),
        (-5, None),
        (9007199254740992.0, None),
        (True, None),
        (None, None),
        ([1], None),
        (10**64, None),
    ],
)
def test_what_names_a_job(value: Any, known_as: str | None) -> None:
    assert external_id(value) == known_as
