"""Exit codes, and the code and advice for each error. docs/command-line.md lists the codes for scripts."""

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
    FAILED = 1  # the command worked, but a job failed, or doctor found an error
    USAGE = 2  # the command line itself is wrong
    REFUSED = 3  # the request is invalid or conflicts with an earlier one, or there is nothing to replay
    NOT_FOUND = 4  # there is no such job, or it was purged
    NOT_ENDED = 5  # the job has not ended, or not in time
    CONFIG = 6  # a setting is wrong or missing
    UNAVAILABLE = (
        7  # Redis does not answer or refuses writes, is configured so that it would lose jobs, or cannot be started
    )
    BUG = 70  # a bug in Outwait: please report it with the traceback that `outwait --debug …` prints
    INTERRUPTED = 130  # Ctrl-C


class ExitRule(NamedTuple):
    """How an error ends a command: the exit code, and advice on what to do."""

    code: Exit
    advice: str = ""


_EXIT_RULES: dict[type[Exception], ExitRule] = {
    InvalidRequest: ExitRule(Exit.REFUSED),
    Conflict: ExitRule(Exit.REFUSED, "A different request needs a different job id or idempotency key."),
    NotReplayable: ExitRule(Exit.REFUSED, "`outwait status JOB` shows the job's deliveries."),
    JobNotFound: ExitRule(Exit.NOT_FOUND, "`outwait jobs` lists the jobs that are stored."),
    ConfigError: ExitRule(Exit.CONFIG, "`outwait config` shows every setting and where its value comes from."),
    ProviderNotConfigured: ExitRule(Exit.CONFIG, "docs/providers.md lists the settings of each provider."),
    NoRedisServer: ExitRule(Exit.UNAVAILABLE),
    StoreUnfit: ExitRule(Exit.UNAVAILABLE, "`outwait doctor` explains what to change."),
    StoreUnavailable: ExitRule(Exit.UNAVAILABLE),
    OutwaitError: ExitRule(Exit.FAILED),
}


def rule_for(error: Exception) -> ExitRule:
    """The rule for the error's class or its nearest base class. An error without a rule is a bug."""
    for kind in type(error).__mro__:
        if kind in _EXIT_RULES:
            return _EXIT_RULES[kind]
    return ExitRule(
        Exit.BUG, "This is a bug in Outwait. Please report it with the traceback that `outwait --debug …` prints."
    )


def advice_for(error: Exception) -> str:
    """What to do about an error; an outage of the store brings its own advice."""
    return error.outage.advice if isinstance(error, StoreUnavailable) else rule_for(error).advice


def report_error(error: Exception) -> Exit:
    """Print what went wrong and what to do about it. Returns the exit code."""
    rule = rule_for(error)
    message = str(error) if rule.code is not Exit.BUG else f"{type(error).__name__}: {error}"
    say(f"Error: {message}")
    if advice := advice_for(error):
        say(advice)
    return rule.code
