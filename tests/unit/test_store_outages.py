"""Which of Redis's errors are outages, and which refuse for good: as redis-py raises them."""

import logging
import time

import pytest
from redis import exceptions

from outwait.worker.model.errors import StoreUnavailable
from outwait.worker.model.store_outages import StoreOutage
from outwait.worker.store.outages import OutageLog, outage_of

IN_SCRIPT = "ERR Error running script (call to f_0a1b): @user_script: 7: @user_script: 7: -"

OUTAGES: list[tuple[Exception, StoreOutage]] = [
    (exceptions.ConnectionError("Error 111 connecting"), StoreOutage.UNREACHABLE),
    (exceptions.ConnectionError("max number of clients reached"), StoreOutage.UNREACHABLE),
    (exceptions.TimeoutError("Timeout reading from socket"), StoreOutage.UNREACHABLE),
    (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), StoreOutage.LOADING),
    (exceptions.AuthenticationError("invalid username-password pair or user is disabled."), StoreOutage.LOGIN),
    (exceptions.ResponseError("NOAUTH Authentication required."), StoreOutage.LOGIN),
    (exceptions.NoPermissionError("User web has no permissions to run the 'set' command"), StoreOutage.PERMISSION),
    (exceptions.ResponseError("ACL failure in script: User a has no permissions to run"), StoreOutage.PERMISSION),
    (exceptions.ReadOnlyError("You can't write against a read only replica."), StoreOutage.READ_ONLY),
    (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StoreOutage.OUT_OF_MEMORY),
    (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), StoreOutage.NO_REPLICAS),
    (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but …"), StoreOutage.DISK),
    (exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), StoreOutage.DISK),
    (exceptions.ResponseError("BUSY Redis is busy running a script."), StoreOutage.BUSY),
    (exceptions.MasterDownError("Link with MASTER is down"), StoreOutage.MASTER_DOWN),
    (exceptions.ClusterDownError("CLUSTERDOWN The cluster is down"), StoreOutage.CLUSTER),
    (exceptions.TryAgainError("Multiple keys request during rehashing of slot"), StoreOutage.CLUSTER),
    (
        exceptions.ResponseError(IN_SCRIPT + "READONLY You can't write against a read only replica."),
        StoreOutage.READ_ONLY,
    ),
    (exceptions.ResponseError(IN_SCRIPT + "NOREPLICAS Not enough good replicas to write."), StoreOutage.NO_REPLICAS),
    (exceptions.ResponseError(IN_SCRIPT + "MISCONF Redis is configured to save"), StoreOutage.DISK),
    (
        exceptions.ResponseError("NOREPLICAS Not enough good replicas. script: 0a1b, on @user_script:7."),
        StoreOutage.NO_REPLICAS,
    ),
    (
        exceptions.ResponseError("Script killed by user with SCRIPT KILL. script: 0a, on @user_script:1."),
        StoreOutage.OTHER,
    ),
    (exceptions.ExecAbortError("Transaction discarded because of previous errors."), StoreOutage.OTHER),
    (exceptions.ResponseError("no upstream host"), StoreOutage.OTHER),
    (exceptions.ConnectionError("Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] …"), StoreOutage.TLS),
    (exceptions.ConnectionError("Error while reading from h:1 : (1, '[SSL: TLSV13_ALERT …')"), StoreOutage.TLS),
]

FOR_GOOD = [
    exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    exceptions.ResponseError("WRONGTYPE Operation against a key … script: 0a1b, on @user_script:7."),
    exceptions.ResponseError("string exceeds maximum allowed size (proto-max-bulk-len)"),
    exceptions.ResponseError("Protocol error: invalid bulk length"),
    exceptions.ResponseError("user_script:3: attempt to index a nil value script: 0a1b, on @user_script:3."),
    exceptions.ResponseError(IN_SCRIPT + "ERR value is not an integer or out of range"),
    exceptions.DataError("600000000 bytes are more than Redis takes in one argument"),
]


@pytest.mark.parametrize(("error", "outage"), OUTAGES, ids=lambda one: str(one)[:60])
def test_what_another_try_may_write_is_an_outage(error: Exception, outage: StoreOutage) -> None:
    assert outage_of(error) is outage


@pytest.mark.parametrize("error", FOR_GOOD, ids=lambda one: str(one)[:60])
def test_what_no_try_can_write_is_refused_for_good(error: Exception) -> None:
    assert outage_of(error) is None


@pytest.mark.parametrize("outage", StoreOutage)
def test_each_outage_says_what_it_is_and_what_to_do(outage: StoreOutage) -> None:
    assert outage.summary
    assert outage.advice.endswith(".")


def test_an_outage_is_one_line_down_and_one_up(caplog: pytest.LogCaptureFixture) -> None:
    outages = OutageLog()
    with caplog.at_level(logging.INFO):
        outages.up(time.monotonic())
        for _ in range(3):
            outages.down(StoreUnavailable("READONLY", StoreOutage.READ_ONLY))
            outages.up(time.monotonic())  # a read
        outages.up(time.monotonic(), wrote=True)
        outages.up(time.monotonic(), wrote=True)
    assert [record.message for record in caplog.records] == ["store-unavailable", "store-back"]


def test_where_nothing_was_answered_a_read_shows_the_end(caplog: pytest.LogCaptureFixture) -> None:
    outages = OutageLog()
    with caplog.at_level(logging.INFO):
        before = time.monotonic()
        outages.down(StoreUnavailable("refused"))
        outages.up(before, wrote=True)  # an answer that came before
        assert len(caplog.records) == 1
        outages.up(time.monotonic())
    assert [record.message for record in caplog.records] == ["store-unavailable", "store-back"]
