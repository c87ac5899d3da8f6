"""Exit codes of our commands and processes. docs/command-line.md lists them for scripts."""

from enum import IntEnum


class Exit(IntEnum):
    """How a command or a process ended."""

    OK = 0
    FAILED = 1  # the command worked, but a job failed, or doctor found an error
    USAGE = 2  # the command line itself is wrong
    REFUSED = 3  # the request is invalid or conflicts with an earlier one, or there is nothing to replay
    NOT_FOUND = 4  # there is no such job, or it was purged
    NOT_ENDED = 5  # the job has not ended, or not in time
    CONFIG = 6  # a setting is wrong or missing, Redis's password included, or a port is not free
    UNAVAILABLE = 7  # Redis does not answer, refuses writes, would lose jobs, or cannot be started
    BUG = 70  # a bug in Outwait: please report it with the traceback that `outwait --debug …` prints
    INTERRUPTED = 130  # Ctrl-C
