"""Which settings let others in, or let secrets out without TLS, and that they are told in one line each."""

import pytest

from outwait.config.exposure import of_all, of_flower, of_providers, of_web
from outwait.config.settings import load_settings

PLAIN = "without TLS, so the network can read credentials and requests"
COOKIES = "without TLS, so the network can read webhooks, and cookies are sent over plain HTTP too"
OPEN = "is not only this machine, and it speaks plain HTTP: put a proxy with TLS in front"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, []),
        ({"OUTWAIT_PROVIDERS__UNLESS__BASE_URL": "https://unless.example/v1"}, []),
        ({"OUTWAIT_PROVIDERS__UNLESS__BASE_URL": "http://127.0.0.1:8099/unless"}, []),
        (
            {"OUTWAIT_PROVIDERS__UNLESS__BASE_URL": "HTTP://u:pass@unless.example/v1?key=secret"},
            [f"OUTWAIT_PROVIDERS__UNLESS__BASE_URL: http://unless.example is {PLAIN}"],
        ),
        ({"OUTWAIT_WEB__ADDRESS": "0.0.0.0"}, [f"OUTWAIT_WEB__ADDRESS: 0.0.0.0 {OPEN}"]),
        ({"OUTWAIT_WEB__ADDRESS": "::"}, [f"OUTWAIT_WEB__ADDRESS: :: {OPEN}"]),
        ({"OUTWAIT_WEB__ADDRESS": "127.0.0.2"}, []),
        (
            {"OUTWAIT_WEB__PUBLIC_URL": "http://outwait.example"},
            [f"OUTWAIT_WEB__PUBLIC_URL: http://outwait.example is {COOKIES}"],
        ),
        (
            {"OUTWAIT_FLOWER__ADDRESS": "0.0.0.0", "OUTWAIT_FLOWER__BASIC_AUTH": "ada:lovelace"},
            [f"OUTWAIT_FLOWER__ADDRESS: 0.0.0.0 {OPEN}"],
        ),
    ],
)
def test_what_opens_more_than_this_machine_is_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert [str(each) for each in of_all(settings)] == told
    assert [*of_providers(settings), *of_web(settings), *of_flower(settings)] == of_all(settings)
