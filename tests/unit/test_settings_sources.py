"""Where settings come from, which source wins, and how each is shown to a person."""

from pathlib import Path

import pytest

from outwait.config.errors import ConfigError
from outwait.config.explain import Effective, effective
from outwait.config.names import variables
from outwait.config.settings import Settings, load_settings


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for secret files, in a working directory without a `.env`."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTWAIT_SECRETS_DIR", str(folder))
    return folder


def shown(name: str) -> Effective:
    return next(row for row in effective(load_settings()) if row.name == name)


def test_the_environment_wins_over_dotenv_over_secret_files_over_defaults(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    name = "OUTWAIT_POLL__LEASE"
    assert shown(name) == (name, "12", "default")
    (secrets / "outwait_poll__lease").write_text("50\n")
    assert shown(name) == (name, "50", f"secret file {secrets / 'outwait_poll__lease'}")
    Path(".env").write_text("OUTWAIT_POLL__LEASE=60\n")
    assert shown(name) == (name, "60", ".env")
    monkeypatch.setenv(name, "70")
    assert shown(name) == (name, "70", "environment")


def test_sources_fill_one_group_together(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    (secrets / "outwait_providers__unless__api_key").write_text("from a file\n")
    Path(".env").write_text("OUTWAIT_PROVIDERS__UNLESS__BASE_URL=https://dotenv\nOTHERS_SETTING=1\n")
    monkeypatch.setenv("OUTWAIT_PROVIDERS__UNLESS__DEADLINE", "60")
    monkeypatch.setenv("OUTWAIT_PROVIDERS__ELEVATEAI__API_TOKEN", "0123")
    assert load_settings().providers == {
        "unless": {"api_key": "from a file", "base_url": "https://dotenv", "deadline": "60"},
        "elevateai": {"api_token": "0123"},  # text, whatever it looks like
    }


def test_a_group_may_be_json_and_says_so_only_for_what_it_holds(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    assert secrets
    monkeypatch.setenv("OUTWAIT_POLL", '{"lease": 50}')
    assert shown("OUTWAIT_POLL__LEASE") == ("OUTWAIT_POLL__LEASE", "50", "environment")
    assert shown("OUTWAIT_POLL__TIME_LIMIT").source == "default"


def test_a_secret_file_may_be_a_link_as_kubernetes_makes_them(secrets: Path) -> None:
    (secrets / "..data").mkdir()
    (secrets / "..data" / "outwait_redis_url").write_text("redis://:pw@host/3")
    (secrets / "OUTWAIT_REDIS_URL").symlink_to(secrets / "..data" / "outwait_redis_url")
    assert load_settings().broker == "redis://:pw@host/3"


def test_files_of_others_in_the_folder_of_secrets_are_not_read(secrets: Path) -> None:
    (secrets / "tls.key").write_bytes(b"\xff\xfe")
    (secrets / "outwait_folder").mkdir()
    load_settings()


def test_a_misspelt_secret_file_is_refused(secrets: Path) -> None:
    (secrets / "outwait_redis_ulr").write_text("redis://host")
    with pytest.raises(ConfigError, match=r"OUTWAIT_REDIS_ULR.*did you mean OUTWAIT_REDIS_URL"):
        load_settings()


def test_a_named_folder_of_secrets_must_be_there(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    monkeypatch.setenv("OUTWAIT_SECRETS_DIR", str(secrets / "missing"))
    with pytest.raises(ConfigError, match=r"OUTWAIT_SECRETS_DIR: given .*missing; must be a folder"):
        load_settings()


def test_a_secret_file_that_holds_no_value_is_refused(secrets: Path) -> None:
    (secrets / "outwait_redis_url").write_bytes(b"x" * 1_048_577)
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load_settings()
    (secrets / "outwait_redis_url").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="decode"):
        load_settings()


def test_every_setting_is_shown_once_and_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    assert secrets
    for name, value in {
        "OUTWAIT_REDIS_URL": "redis://me:hunter2@host:6379/0",
        "OUTWAIT_FLOWER__BASIC_AUTH": "me:hunter2",
        "OUTWAIT_PROVIDERS__RINGCENTRAL__CLIENT_SECRET": "hunter2",
        "OUTWAIT_PROVIDERS__RINGCENTRAL__JWT": "hunter2",
        "OUTWAIT_PROVIDERS__RINGCENTRAL__CLIENT_ID": "visible",
        "OUTWAIT_HANDLERS__ROUTES": '[{"targets": ["https://me:hunter2@host/hook"]}]',
    }.items():
        monkeypatch.setenv(name, value)
    rows = {row.name: row for row in effective(load_settings())}
    assert {name for name, _, _ in variables(Settings)} - {"OUTWAIT_PROVIDERS"} <= rows.keys()
    assert rows["OUTWAIT_REDIS_URL"].value == "redis://me:**@host:6379/0"
    assert rows["OUTWAIT_FLOWER__BASIC_AUTH"].value == "**"
    assert rows["OUTWAIT_PROVIDERS__RINGCENTRAL__CLIENT_ID"].value == "visible"
    assert rows["OUTWAIT_BROKER_URL"].value == ""
    assert rows["OUTWAIT_STORE__STRICT"].value == "false"
    assert "hunter2" not in str(rows)
