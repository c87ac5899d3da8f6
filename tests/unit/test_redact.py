from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outwait.config.masking import masked_url, scrubbed
from outwait.worker.net.redaction import redact, redact_all, redact_bytes, shown

SECRET = "5ecret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing: to see", "nothing: to see"),
        ("at 10:30", "at 10:30"),
        (f"GET https://a.example:8443/p/{SECRET}?access_token={SECRET} failed", "GET https://a.example:8443/… failed"),
        (f'{{"uri":"https:\\/\\/a.example\\/p?t={SECRET}"}}', '{"uri":"https://a.example/…"}'),
        (f"sftp://user:{SECRET}@files.example/x", "sftp://files.example/…"),
        (f"webhook=https%3A%2F%2Fa.example%2F{SECRET}", "webhook=https://a.example/…"),
        ("see https://a.example", "see https://a.example"),
        (f"Authorization: Bearer {SECRET}{SECRET}", "Authorization: Bearer **"),
        (f'{{"access_token": "{SECRET}"}}', '{"access_token": "**"}'),
        (f"ow_0a1b2c3d_{SECRET}{SECRET}", "ow_0a1b2c3d_**"),
        (f"<a href='http://a.example?x={SECRET}'>", "<a href='http://a.example/…'>"),
        (f"https://u:{SECRET}@a.example and http://b.example/{SECRET}", "https://a.example and http://b.example/…"),
    ],
)
def test_of_a_url_only_the_host_is_told_and_of_credentials_nothing(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text(alphabet=st.characters(blacklist_characters=" \t\r\n\"'<>/\\?#@%", min_codepoint=33, max_codepoint=126)))
def test_no_path_survives(secret: str) -> None:
    redacted = redact(f"x https://host.example/a/MARK{secret}?b=MARK{secret}#MARK y")
    assert "MARK" not in redacted
    assert redacted.startswith("x https://host.example/")


def test_every_string_of_json_data_is_redacted() -> None:
    data: Any = {"a": [f"http://x/{SECRET}", 1, None, {"b": f"ftp://x/{SECRET}"}], "c": True}
    assert redact_all(data) == {"a": ["http://x/…", 1, None, {"b": "ftp://x/…"}], "c": True}


def test_parameters_are_shown_short_and_without_what_is_named_a_secret() -> None:
    params: Any = {
        "apiKey": SECRET,
        "uri": f"https://a.example/x?sig={SECRET}",
        "deep": [{"client_secret": {"a": SECRET}, "passwordless": True}],
        "n": 1,
    }
    text = shown(params, 1000)
    assert SECRET not in text
    assert text == repr(
        {
            "apiKey": "**",
            "uri": "https://a.example/…",
            "deep": [{"client_secret": "**", "passwordless": True}],
            "n": 1,
        }
    )
    assert len(shown(params, 20)) == 20


def test_a_url_that_is_cut_in_two_shows_nothing() -> None:
    text = "word " * 700 + f"https://user:{SECRET * 200}@a.example/"
    assert SECRET not in shown({"text": text}, 10_000)
    assert SECRET not in shown({"text": f"https://{SECRET * 2000}"}, 10_000)


FORMS = (
    "see https://user:{}@a.example/x for it",
    "see _https://user:{}@a.example/x for it",
    "redis://:{}@host:6379/0",
    "GET https://a.example/x?a=b?c&access_token={}&b=1 failed",
    "?token=a?{}'?key={} ?sig={} &X-Amz-Signature={}&",
    "Authorization: Bearer {}{}",
    '{{"client_secret": "{}", "password":"{}"}}',
    "the keys ow_0a1b2c3d_{}{} whsec_{}{} and POST /webhooks/unless/{}/{}",
    "webhook=https%3A%2F%2Fa.example%2F{}",
)


@pytest.mark.parametrize("form", FORMS)
def test_wherever_a_text_is_cut_no_part_of_a_secret_is_shown(form: str) -> None:
    text = "it says " + form.replace("{}", SECRET).replace("{{", "{").replace("}}", "}") + " — and so on"
    for limit in range(len(text) + 2):
        for cut in (redact(text, limit), redact_bytes(text.encode(), limit), redact(text, limit)[:10]):
            assert "5e" not in cut, (limit, cut)


URL_PARTS = st.lists(st.sampled_from([*":/@?&= \"'.", "://", "a", "key", "token", "sig", "x=", "https", "%3a%2f%2f"]))


@given(URL_PARTS, URL_PARTS)
def test_no_text_around_it_uncovers_a_secret(before: list[str], after: list[str]) -> None:
    around = "".join(before), "".join(after)
    assert "S3" not in redact(f"{around[0]} https://user:S3@a.example/S3?S3#S3{around[1]}")
    for text in (f"{around[0]}&key=S3 {around[1]}", f"{around[0]} redis://u:S3@h {around[1]}"):
        assert "S3" not in scrubbed(text)
        assert "S3" not in masked_url(f"redis://x {text}")
