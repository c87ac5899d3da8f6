"""Which proxies of the environment go unused, and which URL a proxy may have."""

import pytest

from outwait.config.errors import ConfigError
from outwait.config.http_groups import OutboundSettings
from outwait.config.settings import load_settings
from outwait.worker.net.proxies import unused

PROXY = "http://user:word@proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost"}, ["HTTPS_PROXY"]),
        ({"http_proxy": PROXY, "ALL_PROXY": PROXY}, ["http_proxy", "ALL_PROXY"]),
        ({"HTTPS_PROXY": ""}, []),
    ],
)
def test_a_proxy_of_the_environment_is_named(environment: dict[str, str], names: list[str]) -> None:
    assert unused(environment, OutboundSettings()) == names
    assert unused(environment, OutboundSettings(proxy=PROXY)) == []  # somebody has decided


@pytest.mark.parametrize(
    "wrong", ["proxy.example:3128", "https://proxy.example:3128", "http://proxy.example", "socks5://p:1"]
)
def test_a_wrong_url_of_a_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("OUTWAIT_OUTBOUND__PROXY", wrong)
    with pytest.raises(ConfigError, match="OUTWAIT_OUTBOUND__PROXY"):
        load_settings()
