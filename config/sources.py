"""Where settings come from: the environment, a `.env` file, secret files. All three follow the same rules."""

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    SecretsSettingsSource,
    SettingsError,
)

from outwait.config.names import DELIMITER, PREFIX

SECRETS_DIR = "OUTWAIT_SECRETS_DIR"
"""Variable that names a folder of secret files, one a setting: `outwait_providers__unless__api_key`."""

DEFAULT_SECRETS_DIR = "/run/secrets"
"""Where Docker puts secrets."""

SECRET_MAX = 1_048_576
"""Bytes of the largest secret file that is read."""


class _Lenient(EnvSettingsSource):
    """Passes text that is not JSON on to the validation, whose message names the variable."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class Environment(_Lenient):
    """`OUTWAIT_*` variables."""

    def where(self, _name: str) -> str:
        """The name of this source for people."""
        return "environment"


class DotEnv(_Lenient, DotEnvSettingsSource):
    """A `.env` file in the working directory."""

    def where(self, _name: str) -> str:
        """The name of this source for people."""
        return ".env"


class SecretFiles(_Lenient, NestedSecretsSettingsSource):
    """A folder of files, each with the name of its setting. Other files in it are not read."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        named = os.environ.get(SECRETS_DIR)
        super().__init__(
            SecretsSettingsSource(settings_cls),
            secrets_dir=named or DEFAULT_SECRETS_DIR,
            secrets_dir_missing="error" if named else "ok",
            secrets_prefix=PREFIX,
            secrets_nested_delimiter=DELIMITER,
        )

    def validate_secrets_path(self, path: Path) -> None:
        """Check that the folder exists, if a variable names it."""
        if path.is_dir() or (self.secrets_dir_missing == "ok" and not path.exists()):
            return
        raise SettingsError(f"{SECRETS_DIR}: given {path}; must be a folder of secret files")

    @classmethod
    def load_secrets(cls, path: Path) -> dict[str, str]:
        """Read the files whose names begin with our prefix."""
        return {file.name: _read(file) for file in sorted(path.glob("*")) if _ours(file)}

    def where(self, name: str) -> str:
        """The name of this source for people."""
        files = (file for path in self.secrets_paths for file in path.glob("*") if file.name.lower() == name.lower())
        return f"secret file {next(files, name)}"


Source = Environment | DotEnv | SecretFiles


def sources(settings_cls: type[BaseSettings]) -> tuple[Source, ...]:
    """The sources in the order of their precedence. They read the environment and the files now."""
    return Environment(settings_cls), DotEnv(settings_cls), SecretFiles(settings_cls)


def _ours(file: Path) -> bool:
    return file.name.upper().startswith(PREFIX) and file.is_file()


def _read(file: Path) -> str:
    if file.stat().st_size > SECRET_MAX:
        raise SettingsError(f"{file}: larger than {SECRET_MAX} bytes; a secret file holds one value")
    return file.read_text(encoding="utf-8").strip()
