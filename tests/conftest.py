"""A real Redis-compatible server for the whole run, and a namespace of its own for each test."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from outwait.config.settings import Settings
from outwait.worker.local.embedded import EmbeddedRedis
from outwait.worker.store.connection import Connection
from tests.patience import HANG

# How long one example takes, or the making of one, is a measure of the machine and not of the code.
hypothesis_settings.register_profile("outwait", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("outwait")


def pytest_configure(config: pytest.Config) -> None:
    """No test may hang; `--timeout` sets another limit."""
    config.option.timeout = config.option.timeout or HANG


@pytest.fixture(autouse=True)
def _scrubbed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("OUTWAIT_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for the whole run; `OUTWAIT_TEST_REDIS_URL` names another one."""
    given = os.environ.get("OUTWAIT_TEST_REDIS_URL")
    if given:
        yield given
        return
    folder: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(folder) as server:
        yield server.url


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """Settings with a namespace of the test's own."""
    return Settings(redis_url=redis_url, namespace=f"t-{uuid4().hex[:8]}", _env_file=None)


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    """The store's connection, closed after the test."""
    connection = Connection(settings)
    yield connection
    await connection.close()
