"""What a line of the log looks like, and what it never shows."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence

import pytest

from outwait.config.groups import LogSettings
from outwait.config.logs import ABOUT, JsonLines, TextLines, configure
from outwait.config.masking import masked, masked_url, scrubbed
from outwait.worker.engine.recorder import Recorder
from outwait.worker.model.outcomes import Outcome, Release
from outwait.worker.store.codes import Recorded


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


def record(message: str = "job-polled", **extra: object) -> logging.LogRecord:
    return logging.getLogger("worker.x").makeRecord("worker.x", logging.INFO, "f", 1, message, (), None, extra=extra)


def failure(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        return logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "step-broken", (), sys.exc_info())


def test_a_line_of_text_is_time_level_logger_event_and_fields() -> None:
    line = TextLines().format(record(job="a b", provider="unless", attempts=3))
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'INFO worker.x job-polled job="a b" provider=unless attempts=3'


def test_a_line_of_json_is_one_object() -> None:
    line = json.loads(JsonLines().format(record("über\nall", job="a", attempts=3, ratio=0.5, none=None)))
    assert line.pop("time").endswith("Z")
    assert line.pop("process")
    assert line.pop("event") == "über\nall"
    assert line == {"level": "INFO", "logger": "worker.x", "job": "a", "attempts": 3, "ratio": 0.5, "none": None}


def test_a_traceback_is_kept() -> None:
    assert "ValueError: broken" in TextLines().format(failure("broken"))
    assert "ValueError: broken" in json.loads(JsonLines().format(failure("broken")))["traceback"]


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()])
@pytest.mark.parametrize(
    "text",
    [
        "GET https://host/a?access_token=hunter2&b=1",
        "Authorization: Bearer hunter2hunter2",
        "{'Authorization': 'Basic hunter2hunter2'}",
        '{"client_secret": "hunter2"}',
        "X-API-Token: hunter2",
        "Connected to redis://:hunter2@host:6379/0",
        "assertion=hunter2&grant_type=x",
        "api_key='hunter2'",
        "GET https://host/a?token=hunter2&b=1",
        "GET https://host/a?sv=1&sig=hunter2",
        "GET https://host/a?X-Amz-Signature=hunter2",
        "the key ow_0a1b2c3d_hunter2hunter2",
        "the secret whsec_hunter2hunter2",
        "POST /webhooks/ringcentral/hunter2.hunter2/hunter2 answered 500",
    ],
)
def test_no_line_shows_a_credential(formatter: logging.Formatter, text: str) -> None:
    for logged in (record(text), record(detail=text), record(detail={"nested": text}), failure(text)):
        line = formatter.format(logged)
        assert "hunter2" not in line
        assert "**" in line


def test_a_field_that_is_named_like_a_secret_is_masked() -> None:
    assert TextLines().format(record(api_token="hunter2")).endswith("api_token=**")


@pytest.mark.parametrize(
    "text",
    ["https://host:8080/a?x=1", "mail to joe@example.com at 12:30", "redis://host:6379/0 user@host", "job-1: done"],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrubbed(text) == text


def test_of_a_url_only_the_password_is_masked() -> None:
    assert masked("OUTWAIT_REDIS_URL", "redis://me:p:a/b@c@host:1/0") == "redis://me:**@host:1/0"
    assert masked("OUTWAIT_REDIS_URL", "redis://host:1/0") == "redis://host:1/0"
    assert masked_url("me:pw@host") == "me:**@host"


def test_a_process_logs_to_standard_error_and_quiets_what_says_too_much(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(level="INFO", format="json"))
    logging.getLogger("worker.x").info("job-polled", extra={"job": "a"})
    logging.getLogger("worker.x").debug("hidden")
    logging.getLogger("celery.worker.strategy").info("hidden")
    logging.getLogger("aiohttp.access").info("hidden")
    logging.getLogger("celery.apps.worker").info("ready")
    captured = capsys.readouterr()
    assert [json.loads(line)["event"] for line in captured.err.splitlines()] == ["job-polled", "ready"]
    assert captured.out == ""


def test_a_higher_level_holds_for_the_quiet_ones_too() -> None:
    configure(LogSettings(level="ERROR"))
    assert logging.getLogger("kombu").level == logging.ERROR
    configure(LogSettings(level="DEBUG"))
    assert logging.getLogger("kombu").level == logging.INFO
    assert logging.getLogger("worker.x").isEnabledFor(logging.DEBUG)


def test_celerys_whole_arguments_are_left_out() -> None:
    assert TextLines().format(record(data={"args": "everything"})).endswith("job-polled")


def test_lines_within_a_step_are_about_its_job() -> None:
    token = ABOUT.set({"job": "a", "provider": "unless", "step": "poll"})
    try:
        inside = json.loads(JsonLines().format(record(job="b", attempts=3)))
    finally:
        ABOUT.reset(token)
    assert {name: inside[name] for name in ("job", "provider", "step", "attempts")} == {
        "job": "b",  # what the line says itself holds
        "provider": "unless",
        "step": "poll",
        "attempts": 3,
    }
    assert "step" not in json.loads(JsonLines().format(record()))


async def test_what_writes_outcomes_of_many_jobs_is_about_none() -> None:
    seen: list[object] = []

    class Store:
        async def record(self, outcomes: Sequence[Outcome]) -> tuple[list[Recorded], list[str]]:
            seen.append(dict(ABOUT.get()))
            return [Recorded.WRITTEN] * len(outcomes), []

    ABOUT.set({"job": "a"})
    recorder = Recorder(Store(), lambda _lanes: None)  # type: ignore[arg-type]
    recorder.add(Release(work_id="a", fence=1))
    await recorder.flushed()
    assert seen == [{}]
