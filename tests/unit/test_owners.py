"""To which tenants targets belong."""

import json

import pytest

from outwait.config.errors import ConfigError
from outwait.config.settings import load_settings
from outwait.worker.model.owners import Owners
from outwait.worker.model.targets import parse

CRM = {"crm": ["acme"]}
URLS = {"https://acme.example/*": ["acme"], "https://*.acme.example": ["acme"]}
FILES = {"file:acme/*": ["acme"], "file:*": ["*"]}
STREAMS = {"stream://acme:*": ["acme"], "stream://*": []}
QUEUES = {"celery://*queue=acme": ["acme"], "celery://crm.*": ["globex"]}


@pytest.mark.parametrize(
    ("tenants", "target", "tenant", "refused"),
    [
        ({}, "crm", "acme", 0),
        ({}, "crm", None, 0),
        (CRM, "crm", "acme", 0),
        (CRM, "crm", "globex", 1),
        (CRM, "crm", "ACME", 1),
        (CRM, "crm", None, 1),
        (CRM, "crm2", "globex", 0),
        ({"crm": ["acme", "globex"]}, "crm", "globex", 0),
        ({"crm": []}, "crm", "acme", 1),
        ({"crm": ["*"]}, "crm", None, 0),
        ({"archive": ["*"], "*": ["acme"]}, "archive", "globex", 0),
        ({"archive": ["*"], "*": ["acme"]}, "crm", "globex", 1),
        ({"*": ["acme"]}, "https://acme.example/hook", "globex", 0),  # handlers' names only
        (URLS, "https://acme.example/hook?any=thing", "globex", 1),
        (URLS, "https://ACME.example:443/hook", "globex", 1),
        (URLS, "https://hooks.acme.example/x", "globex", 1),
        (URLS, "https://hooks.acme.example/x", "acme", 0),
        (URLS, "https://globex.example/acme.example/", "globex", 0),
        (FILES, "file:acme/calls.jsonl", "globex", 1),
        (FILES, "file://acme//calls.jsonl", "globex", 1),
        (FILES, "file:acme/2026/calls.jsonl", "acme", 0),
        (FILES, "file:globex/calls.jsonl", "globex", 0),
        (STREAMS, "stream://acme:calls?maxlen=1", "globex", 1),
        (STREAMS, "stream://acme:calls?maxlen=1", "acme", 0),
        (STREAMS, "stream://calls", "acme", 1),
        (QUEUES, "celery://crm.store?queue=acme", "acme", 0),
        (QUEUES, "celery://crm.store?queue=acme", "globex", 1),
        (QUEUES, "celery://crm.store", "globex", 0),
    ],
)
def test_the_first_pattern_that_matches_says_whose_a_target_is(
    tenants: dict[str, list[str]], target: str, tenant: str | None, refused: int
) -> None:
    assert bool(Owners(tenants).refusal(parse(target), tenant)) == bool(refused)


def test_a_refusal_says_what_to_do_and_names_no_other_tenant() -> None:
    owners = Owners({"*": ["acme"], "https://*": ["acme"]})
    for target, tenant, said in (
        ("crm", "globex", "handler crm is not for jobs of tenant globex; the operator can add the tenant"),
        ("crm", None, "handler crm is not for jobs without a tenant; the operator can change this"),
        ("https://shop.example/s3cret?t=1", "globex", "the receiver at shop.example is not for jobs of tenant globex"),
    ):
        why = owners.refusal(parse(target), tenant)
        assert why.startswith(said)
        assert why.endswith("in OUTWAIT_HANDLERS__TENANTS")
        assert "acme" not in why
        assert "s3cret" not in why


@pytest.mark.parametrize(
    "pattern",
    [
        *("CRM", "crm!store", "", "ftp://x", "https://Acme.example/*", "https://acme.example:443/*"),
        *("https:acme.example", "http://acme.example:80", "https://acme.example/hook?x=*", "stream://acme?maxlen=1"),
        *("file:///acme/*", "file:"),
    ],
)
def test_a_pattern_that_could_never_match_is_an_error(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_HANDLERS__TENANTS", json.dumps({pattern: ["acme"]}))
    with pytest.raises(ConfigError, match=r"^OUTWAIT_HANDLERS__TENANTS: .* can match no target"):
        load_settings()


def test_what_the_settings_give(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**CRM, **URLS, **FILES, **STREAMS, **QUEUES, "https://*::1*:8443/*": ["a_b.c@d-e"]}
    monkeypatch.setenv("OUTWAIT_HANDLERS__TENANTS", json.dumps({**given, "bi": "acme, globex"}))
    monkeypatch.setenv("OUTWAIT_WEBHOOKS__SHARED", "https://crm.example/*,http://*.internal:8080")
    settings = load_settings()
    assert list(settings.handlers.tenants.items()) == [*given.items(), ("bi", ["acme", "globex"])]
    assert settings.webhooks.shared == ["https://crm.example/*", "http://*.internal:8080"]
    monkeypatch.setenv("OUTWAIT_HANDLERS__TENANTS", '{"crm": ["a b"]}')
    monkeypatch.setenv("OUTWAIT_WEBHOOKS__SHARED", "*")
    with pytest.raises(ConfigError, match="'a b' cannot be a tenant") as wrong:
        load_settings()
    assert "OUTWAIT_WEBHOOKS__SHARED" in str(wrong.value)
