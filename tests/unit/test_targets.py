import re
import string
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outwait.config.groups import Route
from outwait.worker.model.errors import InvalidRequest
from outwait.worker.model.targets import (
    FORMS,
    CeleryTarget,
    FileTarget,
    FunctionTarget,
    StreamTarget,
    Target,
    WebhookTarget,
    allowed,
    canonical,
    parse,
    route,
)

WORDS = st.text(string.ascii_letters + string.digits + "_.:@/-", min_size=1, max_size=200)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,59}", fullmatch=True)
PARTS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,20}", fullmatch=True)
FILES = st.tuples(st.lists(PARTS, max_size=3), PARTS).map(lambda pair: "/".join([*pair[0], pair[1] + ".jsonl"]))
LABELS = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=3).map(".".join) | st.ip_addresses(v=4).map(str)
PATHS = st.text(string.ascii_letters + string.digits + "_~!$&'()*+,;=:@-", max_size=20).map(lambda text: "/" + text)
URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https"]),
    HOSTS | st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.just("") | st.integers(1, 65535).filter(lambda port: port not in (80, 443)).map(":{}".format),
    PATHS,
    st.just("") | PATHS.map("?{}".format),
)
TARGETS = st.one_of(
    st.builds(WebhookTarget, URLS),
    st.builds(FunctionTarget, NAMES),
    st.builds(CeleryTarget, WORDS, WORDS),
    st.builds(StreamTarget, WORDS, st.none() | st.integers(1, 10**12 - 1)),
    st.builds(FileTarget, FILES),
)


KINDS = set(get_args(Target))
PAGE = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text()


@given(TARGETS)
def test_a_canonical_target_means_itself(target: Target) -> None:
    assert parse(canonical(target)) == target
    assert canonical(parse(canonical(target))) == canonical(target)


@given(st.text(max_size=60) | st.text("celryfistam:/?=&.%{}0a", max_size=40))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        target = parse(text)
        assert parse(canonical(target)) == target
        assert "{" not in canonical(target)


EXAMPLES = [
    ("crm", FunctionTarget("crm")),
    ("celery://crm.store", CeleryTarget("crm.store", "celery")),
    ("celery://crm.store?queue=crm", CeleryTarget("crm.store", "crm")),
    ("stream://results", StreamTarget("results")),
    ("stream://results?maxlen=1000", StreamTarget("results", 1000)),
    ("https://example.com", WebhookTarget("https://example.com/")),
    ("HTTPS://Example.COM:443/Hook?a=B", WebhookTarget("https://example.com/Hook?a=B")),
    ("http://example.com:8080/x?", WebhookTarget("http://example.com:8080/x")),
    ("https://[2001:DB8:0::1]:8443/x", WebhookTarget("https://[2001:db8::1]:8443/x")),
    ("file:out.jsonl", FileTarget("out.jsonl")),
    ("file://2026/out.jsonl", FileTarget("2026/out.jsonl")),
]


def test_each_kind_is_tried_shown_in_errors_and_described() -> None:
    """A new kind of handler needs a row in `EXAMPLES`, one in `FORMS` and one in the table of docs/handlers.md."""
    forms = re.findall(r"\((\w+)\)|(\w+:[^\s,]+)", FORMS)
    described = re.findall(r"^\| `([^`]+)` \| an? ", PAGE.partition("\n## ")[0], re.MULTILINE)
    assert {type(target) for _, target in EXAMPLES} == KINDS
    assert {type(parse(name or uri)) for name, uri in forms} == KINDS
    assert {type(parse(text)) for text in described} == KINDS


@pytest.mark.parametrize(("text", "expected"), EXAMPLES)
def test_each_form(text: str, expected: Target) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("celery://crm.store", "CELERY://crm.store?queue=celery"),
        ("celery://crm.store?queue=a/b", "celery://crm.store?queue=a%2Fb"),
        ("stream://results?maxlen=10", "stream://results?maxlen=010"),
        ("file:a/out.jsonl", "file://a//./out.jsonl"),
    ],
)
def test_two_spellings_of_one_handler_have_one_lane(spelling: str, other: str) -> None:
    assert canonical(parse(spelling)) == canonical(parse(other))


def test_case_tells_tasks_and_keys_apart() -> None:
    assert canonical(parse("celery://Crm.Store")) != canonical(parse("celery://crm.store"))
    assert canonical(parse("stream://A")) != canonical(parse("stream://a"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a letter first"),
        ("CRM", "lower-case"),
        ("1crm", "a letter first"),
        ("crm\n", "lower-case"),
        ("a" * 61, "1 to 60"),
        ("https:example.com/hook", "'//' must follow"),
        ("https:///hook", "the host must be"),
        ("https://user:secret@example.com/hook", "user or password"),
        ("https://example.com/hook#part", "fragment"),
        ("https://example.com/{outwait}", "braces"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/%zz", "percent-encode"),
        ("https://münchen.example/hook", "ASCII"),
        ("https://exa_mple..com/", "the host must be"),
        ("https://example.com./", "the host must be"),
        ("https://example.com:0x50/", "Port"),
        ("https://example.com:99999/", "Port"),
        ("https://example.com/a/../b", "must not contain '.' or '..'"),
        ("https://example.com/a/%2e%2E/b", "must not contain '.' or '..'"),
        ("https://2130706433/", "4 octets"),
        ("https://0x7f.1/", "4 octets"),
        ("https://0177.0.0.1/", "0177"),
        ("https://010.0.0.1/", "Leading zeros"),
        ("https://[::1%eth0]/", "percent-encode"),
        ("https://[::1/", "IPv6"),
        ("redis://example.com", "scheme 'redis' is unknown"),
        ("celery:crm.store", "'//' must follow"),
        ("celery://", "task name"),
        ("celery://user:secret pass@host", "task name"),
        ("celery://crm.store?que=crm", "only option allowed is 'queue'"),
        ("celery://crm.store?queue=a&queue=b", "only option allowed is 'queue'"),
        ("celery://crm.store?queue=", "queue"),
        ("celery://crm.store#x", "task name"),
        ("stream://{outwait}:lanes", "stream key"),
        ("stream://results?maxlen=0", "maxlen"),
        ("stream://results?maxlen=-1", "maxlen"),
        ("stream://results?maxlen=٣", "maxlen"),
        ("stream://results?maxlen", "bad query"),
        ("file:/etc/out.jsonl", "relative"),
        ("file:///etc/out.jsonl", "relative"),
        ("file:../out.jsonl", "not begin with a dot"),
        ("file:a/../../out.jsonl", "not begin with a dot"),
        ("file:%2e%2e/out.jsonl", "letters"),
        ("file:.hidden/out.jsonl", "not begin with a dot"),
        ("file:out.txt", ".jsonl"),
        ("file:.jsonl", ".jsonl"),
        ("file:", ".jsonl"),
        ("file:a\\..\\out.jsonl", "letters"),
        ("file:all.jsonl/out.jsonl", "would take the place of a file"),
        ("file:ALL.JSONL/out.jsonl", "would take the place of a file"),
        ("file:out\x00.jsonl", "letters"),
    ],
)
def test_a_refusal_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match="A target is a handler's name") as refused:
        parse(text)
    assert reason in str(refused.value)
    assert ":secret@" not in str(refused.value)


def test_the_first_route_that_matches_is_taken() -> None:
    routes = [
        Route(provider="unless", operation="query", targets=["answers"]),
        Route(provider="unless", targets=["crm", "file://all.jsonl", "file:all.jsonl"]),
        Route(operation="audio", targets=["celery://a.b?queue=celery"]),
    ]
    assert route(routes, "unless", "query") == ("answers",)
    assert route(routes, "unless", "chat") == ("crm", "file:all.jsonl")
    assert route(routes, "elevateai", "audio") == ("celery://a.b",)
    assert route(routes, "elevateai", "text") == ()
    assert route([Route(targets=["all"])], "any", "thing") == ("all",)


def test_a_route_to_no_target_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ftp://x"):
        route([Route(targets=["ftp://x"])], "unless", "query")


def test_a_webhook_s_receiver_and_host() -> None:
    target = WebhookTarget("https://[2001:db8::1]:8443/x?a=https://b")
    assert (target.receiver, target.host, target.encrypted) == ("https://[2001:db8::1]:8443/x", "2001:db8::1", True)


@pytest.mark.parametrize(
    ("target", "pattern", "expected"),
    [
        ("crm", "[a-z]*", True),
        ("crm", "*", True),
        ("crm", "crm-*", False),
        ("celery://crm.store", "[a-z]*", False),
        ("celery://crm.store", "*", False),
        ("file:out.jsonl", "*", False),
        ("stream://x", "https://*", False),
        ("celery://crm.store", "celery://crm.*", True),
        ("file:web/out.jsonl", "file:web/*", True),
        ("https://example.com/hook?a=b", "https://*", True),
        ("http://example.com/hook", "https://*", False),
        ("https://example.com/hook", "https://example.com", True),
        ("https://example.com/hook", "https://example.com/", False),
        ("https://example.com/hook/1", "https://example.com/hook/*", True),
        ("https://example.com:8443/hook", "https://example.com/*", False),
        ("https://a.example.com/hook", "https://*.example.com", True),
        ("https://evil.com/.example.com", "https://*.example.com", False),
        ("https://evil.com/.example.com/", "https://*.example.com/*", False),
        ("https://example.com.evil.com/", "https://example.com*/*", True),
        ("https://example.com/", "*", False),
    ],
)
def test_patterns_of_targets(target: str, pattern: str, *, expected: bool) -> None:
    assert allowed(target, [pattern]) is expected
    assert allowed(target, ["none", pattern]) is expected
    assert not allowed(target, [])
