"""The exit code and the advice for each error."""

from typing import NamedTuple

from outwait.cli.output import say
from outwait.config.errors import ConfigError
from outwait.config.exits import Exit
from outwait.worker.model.errors import (
    Conflict,
    ExternalIdTaken,
    InvalidRequest,
    JobNotFound,
    NoRedisServer,
    NotReplayable,
    OutwaitError,
    ProviderNotConfigured,
    QuotaExceeded,
    StoreUnavailable,
    StoreUnfit,
)
from outwait.worker.model.store_outages import StoreOutage


class ExitRule(NamedTuple):
    """How an error ends a command: the exit code, and advice on what to do."""

    code: Exit
    advice: str = ""


_EXIT_RULES: dict[type[Exception], ExitRule] = {
    InvalidRequest: ExitRule(Exit.REFUSED),
    Conflict: ExitRule(Exit.REFUSED, "A different request needs a different job id or idempotency key."),
    ExternalIdTaken: ExitRule(Exit.REFUSED),
    QuotaExceeded: ExitRule(Exit.REFUSED),
    NotReplayable: ExitRule(Exit.REFUSED, "`outwait status JOB` shows the job's deliveries."),
    JobNotFound: ExitRule(Exit.NOT_FOUND, "`outwait jobs` lists the jobs that are stored."),
    ConfigError: ExitRule(Exit.CONFIG, "`outwait config` shows every setting and where its value comes from."),
    ProviderNotConfigured: ExitRule(Exit.CONFIG, "docs/providers.md lists the settings of each provider."),
    NoRedisServer: ExitRule(Exit.UNAVAILABLE),
    StoreUnfit: ExitRule(Exit.UNAVAILABLE, "`outwait doctor` explains what to change."),
    OutwaitError: ExitRule(Exit.FAILED),
}


def rule_for(error: Exception) -> ExitRule:
    """The rule for the error's class or its nearest base class; an outage of the store brings its own advice.

    An error without a rule is a bug.
    """
    if isinstance(error, StoreUnavailable):
        return ExitRule(Exit.CONFIG if error.outage is StoreOutage.LOGIN else Exit.UNAVAILABLE, error.outage.advice)
    for kind in type(error).__mro__:
        if kind in _EXIT_RULES:
            return _EXIT_RULES[kind]
    return ExitRule(
        Exit.BUG, "This is a bug in Outwait. Please report it with the traceback that `outwait --debug …` prints."
    )


def report_error(error: Exception) -> Exit:
    """Print what went wrong and what to do about it. Returns the exit code."""
    rule = rule_for(error)
    message = str(error) if rule.code is not Exit.BUG else f"{type(error).__name__}: {error}"
    say(f"Error: {message}")
    if rule.advice:
        say(rule.advice)
    return rule.code
