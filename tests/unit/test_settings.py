"""What a wrong setting looks like to the person who typed it."""

import os
import traceback
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from outwait.config.errors import Clash, ConfigError, explain
from outwait.config.groups import StepSettings
from outwait.config.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.upper().startswith("OUTWAIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets").mkdir()
    monkeypatch.setenv("OUTWAIT_SECRETS_DIR", str(tmp_path / "secrets"))


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    return str(caught.value)


def test_defaults_are_good() -> None:
    settings = load_settings()
    assert settings.broker == "redis://127.0.0.1:6379/0"
    assert settings.broker_is_redis
    leases = {step.lease for step in (settings.submit, settings.poll, settings.callback, settings.deliver)}
    assert {*leases, settings.intake.lease} == {12}, "a killed worker costs seconds"


def test_one_value_of_a_group_leaves_the_groups_other_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_SUBMIT__LEASE", "100")
    assert load_settings().submit == StepSettings(time_limit=60, lease=100, attempts=30)


def test_overrides_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_WORKER__CONCURRENCY", "3")
    settings = load_settings(worker={"concurrency": 5})
    assert settings.worker.concurrency == 5
    assert settings.worker.batch == 64


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_BROKER_URL", "")
    monkeypatch.setenv("OUTWAIT_POLL__LEASE", "")
    monkeypatch.setenv("OUTWAIT_FLOWER__BASIC_AUTH", "")
    settings = load_settings()
    assert settings.broker_url is None
    assert settings.poll.lease == 12
    assert settings.flower.basic_auth is None


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("OUTWAIT_WORKER__CONCURRENCY", "many", "must be a valid integer"),
        ("OUTWAIT_WORKER__CONCURRENCY", "0", "must be greater than or equal to 1"),
        ("OUTWAIT_POLL__TIME_LIMIT", "-1", "must be greater than 0"),
        ("OUTWAIT_POLL__TIME_LIMIT", "inf", "must be a finite number"),
        ("OUTWAIT_LOG__LEVEL", "LOUD", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("OUTWAIT_NAMESPACE", "a b", "should match pattern"),
        ("OUTWAIT_STORE__STRICT", "perhaps", "must be a valid boolean"),
        ("OUTWAIT_POLL__LEASE", "0.5", "must be greater than or equal to 1"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    message = refusal(monkeypatch, **{variable: value})
    assert message.startswith(f"{variable}: given '{value}'; ")
    assert allowed in message


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, OUTWAIT_LOG__LEVEL="x", OUTWAIT_WORKER__BATCH="x", OUTWAIT_BANANA="x")
    assert {line.partition(":")[0] for line in message.splitlines()} == {
        "OUTWAIT_LOG__LEVEL",
        "OUTWAIT_WORKER__BATCH",
        "OUTWAIT_BANANA",
    }


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"OUTWAIT_POLL__BACKOFF_MAX": "1"}, "OUTWAIT_POLL__BACKOFF and OUTWAIT_POLL__BACKOFF_MAX: given 2 and 1;"),
        ({"OUTWAIT_WORKER__GRACE": "30"}, "OUTWAIT_WORKER__GRACE and OUTWAIT_SUBMIT__TIME_LIMIT: given 30 and 60;"),
        (
            {"OUTWAIT_INTAKE__QUEUE": "outwait.poll"},
            "OUTWAIT_INTAKE__QUEUE and OUTWAIT_NAMESPACE: given",
        ),
        (
            {"OUTWAIT_FLOWER__ADDRESS": "0.0.0.0"},
            "OUTWAIT_FLOWER__ADDRESS and OUTWAIT_FLOWER__BASIC_AUTH: given",
        ),
        (
            {"OUTWAIT_BROKER_URL": "redis://other/0"},
            "OUTWAIT_BROKER_URL and OUTWAIT_REDIS_URL: given",
        ),
        ({"OUTWAIT_BROKER_URL": "redis://127.0.0.1/1"}, "OUTWAIT_BROKER_URL and OUTWAIT_REDIS_URL: given"),
    ],
)
def test_values_that_clash_are_both_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], names: str
) -> None:
    assert refusal(monkeypatch, **variables).startswith(names)


def test_a_flower_with_a_login_may_be_open_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_FLOWER__ADDRESS", "0.0.0.0")
    monkeypatch.setenv("OUTWAIT_FLOWER__BASIC_AUTH", "me:pass")
    assert load_settings().flower.address == "0.0.0.0"


def test_the_same_redis_by_another_login_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_REDIS_URL", "redis://localhost")
    monkeypatch.setenv("OUTWAIT_BROKER_URL", "redis://u:p@localhost:6379/0")
    assert load_settings().broker_is_redis


def test_rabbitmq_is_a_broker_whose_messages_the_intake_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_BROKER_URL", "amqps://u:p@host/vhost")
    assert not load_settings().broker_is_redis


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("OUTWAIT_REDIS_ULR", "OUTWAIT_REDIS_URL"),
        ("OUTWAIT_FLOWER_PORT", "OUTWAIT_FLOWER__PORT"),
        ("OUTWAIT_POLL__TIME_LIMT", "OUTWAIT_POLL__TIME_LIMIT"),
        ("outwait_pol__lease", "OUTWAIT_POLL__LEASE"),
        ("OUTWAIT_REDIS_URL__X", "OUTWAIT_REDIS_URL"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    message = refusal(monkeypatch, **{given: "1"})
    assert message == f"{given.upper()}: there is no such setting; did you mean {meant}?"


def test_an_unknown_name_in_a_group_is_told_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, OUTWAIT_EVENTS__BANANA="1")
    assert (
        "there are OUTWAIT_EVENTS__JOBS, OUTWAIT_EVENTS__INTERNAL, OUTWAIT_EVENTS__RESULTS, OUTWAIT_EVENTS" in message
    )


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"OUTWAIT_REDIS_ULR.*did you mean OUTWAIT_REDIS_URL"):
        load_settings(redis_ulr="redis://x")


def test_what_an_orchestrator_sets_for_a_service_of_our_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OUTWAIT_SERVICE_HOST": "10.0.0.1",
        "OUTWAIT_FLOWER_SERVICE_PORT": "5555",
        "OUTWAIT_FLOWER_PORT": "tcp://10.0.0.1:5555",
        "OUTWAIT_FLOWER_PORT_5555_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    load_settings()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:6379", "must begin with redis:// or rediss://"),
        ("sentinel://host:26379", "must end with the master's name and a database"),
        ("sentinel://host:26379,other:99999/jobs/0", "the port must be a number from 1 to 65535"),
        ("sentinel://host:26379,/jobs/0", "must name a host"),
        ("sentinel://host/jobs/0?ssl_ca_certs=/ca.pem", "must begin with sentinels:// if it has TLS options"),
        ("redis://one:6379,two:6379/0", "several sentinels are sentinel://"),
        ("unix://", "must be the path of a socket"),
        ("unix:///run/redis.sock?db=x", "must be the path of a socket"),
        ("Redis://host", "must begin with redis:// or rediss://"),
        ("redis:///0", "must name a host"),
        ("redis://host:0", "must name a host; a port must be from 1 to 65535"),
        ("redis://host:99999", "the port must be a number from 1 to 65535"),
        ("redis://host/jobs", "must end with a database number"),
        ("redis://host/0?db=3", "may only have the options ssl_ca_certs"),
        ("rediss://host/0?ssl_check_hostname=no", "may only have the options ssl_ca_certs"),
        ("redis://host/0?ssl_ca_certs=/ca.pem", "must begin with rediss:// if it has TLS options"),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", "may only have required or none as ssl_cert_reqs"),
    ],
)
def test_a_wrong_redis_url_is_told_why(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    assert message in refusal(monkeypatch, OUTWAIT_REDIS_URL=url)


def test_a_json_setting_that_is_no_json_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, OUTWAIT_HANDLERS__ROUTES="crm") == (
        "OUTWAIT_HANDLERS__ROUTES: must be a JSON list, and is other text"
    )
    monkeypatch.delenv("OUTWAIT_HANDLERS__ROUTES")
    assert refusal(monkeypatch, OUTWAIT_PROVIDERS='{"a": ').startswith("OUTWAIT_PROVIDERS: must be a JSON object")


def test_a_fault_inside_a_json_setting_is_named_to_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, OUTWAIT_HANDLERS__ROUTES='[{"targets": ["a"]}, {"provider": "unless"}]')
    assert message == "OUTWAIT_HANDLERS__ROUTES[1].targets: is missing"


def test_modules_are_a_json_list_or_names_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTWAIT_HANDLERS__MODULES", "a.b, c")
    assert load_settings().handlers.modules == ["a.b", "c"]
    monkeypatch.setenv("OUTWAIT_HANDLERS__MODULES", '["a.b", "c"]')
    assert load_settings().handlers.modules == ["a.b", "c"]


SECRET = "hunter2"


@pytest.mark.parametrize(
    "variables",
    [
        {"OUTWAIT_REDIS_URL": f"http://user:{SECRET}@host"},
        {"OUTWAIT_REDIS_URL": f"user:{SECRET}@host"},
        {"OUTWAIT_REDIS_URL": f"redis://user:{SECRET}/{SECRET}@host"},
        {"OUTWAIT_REDIS_URL": f"redis://host/0?password={SECRET}"},
        {"OUTWAIT_BROKER_URL": f"redis://user:{SECRET}@elsewhere/0"},
        {"OUTWAIT_FLOWER__BASIC_AUTH": SECRET},
        {"OUTWAIT_FLOWER": f"user:{SECRET}"},
        {"OUTWAIT_FLOWER": f'{{"basic_auth": "u:{SECRET}", "prt": 1}}'},
        {"OUTWAIT_PROVIDERS": SECRET},
        {"OUTWAIT_PROVIDERS__UNLESS": SECRET},
    ],
)
def test_a_refusal_shows_no_secret_and_neither_does_its_traceback(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    text = "".join(traceback.format_exception(caught.value))
    assert next(iter(variables)) in text
    assert SECRET not in text


def test_settings_do_not_show_secrets_when_printed() -> None:
    settings = load_settings(redis_url=f"redis://:{SECRET}@host/0")
    assert SECRET not in repr(settings)
    assert settings.broker == f"redis://:{SECRET}@host/0"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings().worker = None
    assert Settings.model_config["frozen"]


class Vendor(BaseModel, extra="forbid"):
    api_key: str
    base_url: str = ""
    fast: float = 1
    slow: float = 2

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.slow < self.fast:
            raise Clash({"slow": self.slow, "fast": self.fast}, "slow is slower")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "OUTWAIT_PROVIDERS__X__API_KEY: is missing"),
        ({"api_key": {"a": SECRET}}, "OUTWAIT_PROVIDERS__X__API_KEY: given a JSON object; must be a valid string"),
        (
            {"api_key": "k", "bse_url": "u"},
            "OUTWAIT_PROVIDERS__X__BSE_URL: there is no such setting; did you mean OUTWAIT_PROVIDERS__X__BASE_URL?",
        ),
        (
            {"api_key": "k", "slow": 0.5},
            "OUTWAIT_PROVIDERS__X__SLOW and OUTWAIT_PROVIDERS__X__FAST: given 0.5 and 1; slow is slower",
        ),
    ],
)
def test_settings_of_a_provider_are_explained_in_the_same_way(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Vendor(**values)
    assert explain(caught.value, "OUTWAIT_PROVIDERS__X__", Vendor) == message
