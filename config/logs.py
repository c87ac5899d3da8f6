"""Logging of every process: one line for each event, with a key first, ids as fields, and secrets removed.

The message is a stable key (`job-submitted`); the details are fields in `extra`:
`log.info("job-submitted", extra={"job": job_id, "provider": name})`.
"""

import json
import logging
import logging.config
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from outwait.config.groups import LogSettings
from outwait.config.masking import MASK, is_secret, scrubbed
from outwait.config.printable import escaped, printable

QUIET = {
    "celery.worker.strategy": "WARNING",  # a line for each batch received
    "celery.app.trace": "WARNING",  # a line for each batch done
    "aiohttp.access": "WARNING",  # a line for each request
    "tornado.access": "WARNING",  # a line for each click in Flower
    "asyncio": "WARNING",
    "opentelemetry": "ERROR",  # a line for each try while its collector does not answer
    "kombu": "INFO",
    "amqp": "INFO",
    "celery.utils.functional": "INFO",  # prints the source code of every task
}
"""Minimum levels of loggers that write too much."""

REPEATED = ("celery.worker.consumer.consumer", "celery.worker.consumer.connection")
"""Loggers of Celery that say the same again and again while its broker is away or refuses messages."""

REPEAT_AFTER = 60.0
"""Seconds after which one of them may say the same again."""

ABOUT: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))
"""Fields that are added to every line of an asyncio task, and of a handler's call in it."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CELERY_DATA = "data"  # Celery's own extra: all arguments of a task


def configure(log: LogSettings) -> None:
    """Set up the logging of this process. Lines go to standard error."""
    formatter = JsonLines if log.format == "json" else TextLines
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"level": log.level, "handlers": ["stderr"]},
            "filters": {"repeated": {"()": Repeated}},
            "loggers": {
                **{name: {"level": _higher(level, log.level)} for name, level in QUIET.items()},
                **{name: {"filters": ["repeated"]} for name in REPEATED},
            },
        }
    )
    logging.captureWarnings(capture=True)


class Repeated(logging.Filter):
    """Lets a message through once in a while: the same one, whatever its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether nobody has said it for a minute."""
        said = self._said.get(record.msg, -REPEAT_AFTER)
        if record.created - said < REPEAT_AFTER:
            return False
        self._said[record.msg] = record.created
        return True


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO outwait.worker.engine.clock tick-back ticking=clock`: for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, event, fields; a traceback follows."""
        fields = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        message = scrubbed(record.getMessage()).replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname} {record.name} {message}{fields}"
        return printable("\n".join((line, *_details(self, record))), keep="\n\t")


class JsonLines(logging.Formatter):
    """One JSON object a line: for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """`time`, `level`, `logger`, `event`, `process`, the fields, and `traceback` if there is one."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "event": scrubbed(record.getMessage()),
            "process": record.process,
            **_fields(record),
        }
        details = "\n".join(_details(self, record))
        return escaped(json.dumps(line | {"traceback": details} if details else line, ensure_ascii=False, default=str))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and key != _CELERY_DATA}
    return {key: _shown(key, value) for key, value in {**ABOUT.get(), **extra}.items()}


def _shown(key: str, value: Any) -> Any:
    if is_secret(key):
        return MASK
    return value if isinstance(value, int | float | None) else scrubbed(str(value))


def _quoted(value: Any) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(sign in text for sign in ' "=')
    return text if plain else escaped(json.dumps(text, ensure_ascii=False))


def _details(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return [scrubbed(part) for part in parts]


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _higher(level: str, other: str) -> str:
    levels = logging.getLevelNamesMapping()
    return max(level, other, key=levels.__getitem__)
