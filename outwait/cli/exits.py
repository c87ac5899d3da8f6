"""Exit codes, and which error ends in which. docs/command-line.md lists them for scripts."""

from enum import IntEnum
from typing import NamedTuple

from outwait.cli.output import say
from outwait.config.errors import ConfigError
from outwait.worker.model.errors import (
    Conflict,
    InvalidRequest,
    JobNotFound,
    NoRedisServer,
    NotReplayable,
    OutwaitError,
    ProviderNotConfigured,
    StoreUnavailable,
    StoreUnfit,
)


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1  # the command worked, and what it looked at did not: a job failed, doctor found an error
    USAGE = 2  # the command line itself is wrong
    REFUSED = 3  # the request is invalid, in conflict with an earlier one, or cannot be replayed
    NOT_FOUND = 4  # no such job, or it was purged
    NOT_ENDED = 5  # the job has not ended (in time)
    CONFIG = 6  # a setting is wrong or missing
    UNAVAILABLE = 7  # Redis does not answer, would lose jobs, or cannot be started
    BUG = 70  # an error of Outwait's own: please report it with `outwait --debug …`
    INTERRUPTED = 130  # Ctrl-C


class Ending(NamedTuple):
    """How an error ends a command: its code, and what to do about it."""

    code: Exit
    advice: str = ""


_ENDINGS: dict[type[Exception], Ending] = {
    InvalidRequest: Ending(Exit.REFUSED),
    Conflict: Ending(Exit.REFUSED, "Use another job id or idempotency key for another request."),
    NotReplayable: Ending(Exit.REFUSED, "`outwait status JOB` shows its deliveries."),
    JobNotFound: Ending(Exit.NOT_FOUND, "`outwait jobs` lists those that are kept."),
    ConfigError: Ending(Exit.CONFIG, "`outwait config` lists every setting and where it comes from."),
    ProviderNotConfigured: Ending(Exit.CONFIG, "docs/providers.md lists the settings of each provider."),
    NoRedisServer: Ending(Exit.UNAVAILABLE),
    StoreUnfit: Ending(Exit.UNAVAILABLE, "`outwait doctor` says what to change."),
    StoreUnavailable: Ending(
        Exit.UNAVAILABLE, "Set OUTWAIT_REDIS_URL to a running Redis, or start everything with `outwait up`."
    ),
    OutwaitError: Ending(Exit.FAILED),
}


def ending(error: Exception) -> Ending:
    """The nearest entry of the error's family; anything unknown is a bug."""
    for kind in type(error).__mro__:
        if kind in _ENDINGS:
            return _ENDINGS[kind]
    return Ending(Exit.BUG, "This is a bug. `outwait --debug …` prints the traceback to report.")


def tell(error: Exception) -> Exit:
    """Say what went wrong and what to do about it; the code to end with."""
    end = ending(error)
    known = str(error) if end.code is not Exit.BUG else f"{type(error).__name__}: {error}"
    say(f"Error: {known}")
    if end.advice:
        say(end.advice)
    return end.code
