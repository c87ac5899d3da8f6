"""A timeline's lines as people read them: no JSON, however much of it was stored."""

import pytest

from outwait.worker.model.jobs import JobError
from outwait.worker.store.timeline import entry

ERROR = JobError("rejected", 'the "file"\nis\ttoo loud: 10 µV', {"line": 1}).text()


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("submitted", ""),
        ("retry outage: timed out", "outage: timed out"),
        (f"failed {ERROR}", 'rejected: the "file"\nis\ttoo loud: 10 µV'),
        (f"dead crm {ERROR}", 'crm rejected: the "file"\nis\ttoo loud: 10 µV'),
        (f"dead https://crm.example/… {ERROR[:-5]}", 'https://crm.example/… rejected: the "file"\nis\ttoo loud: 10 µV'),
        (f"failed {ERROR[:42]}", 'rejected: the "file"…'),
        (f"failed {ERROR[:43]}", 'rejected: the "file"…'),
        (f"failed {ERROR[:44]}…", 'rejected: the "file"\n…'),
        (f"failed {ERROR.partition('µ')[0].rstrip()}\ufffd", 'rejected: the "file"\nis\ttoo loud: 10…'),
        ('retry {"code":7}', '{"code":7}'),
        ('retry {"code":"a","message":"\\ud800', '{"code":"a","message":"\\ud800'),
    ],
)
def test_an_error_in_a_timeline_is_its_words(stored: str, shown: str) -> None:
    assert entry(f"1700000000250 {stored}").detail == shown


def test_a_line_has_its_time_and_its_event() -> None:
    read = entry("1700000000250 enqueued")
    assert (read.at, read.event) == (1700000000.25, "enqueued")
